package hallmark.rules.host_test

import data.hallmark.rules.host

_found(kind, object) := found if {
	found := {[finding.message, finding.args] | some finding in host.deny} with input as {
		"request": {"kind": kind},
		"object": object,
	}
}

_network := {["the pod uses {field} of its node", {"field": "hostNetwork"}]}

test_plain_pod_passes if _found("Pod", {"spec": {"containers": [], "volumes": [{"name": "home", "emptyDir": {}}]}}) == set()

test_network_is_denied_wherever_the_template_is if {
	_found("Pod", {"spec": {"hostNetwork": true}}) == _network
	_found("Deployment", {"spec": {"template": {"spec": {"hostNetwork": true}}}}) == _network
	_found("CronJob", {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"hostNetwork": true}}}}}}) == _network
	_found("PodTemplate", {"template": {"spec": {"hostNetwork": true}}}) == _network
}

test_directory_of_the_node_is_denied if {
	_found("Pod", {"spec": {"volumes": [{"name": "docker", "hostPath": {"path": "/var/run/docker.sock"}}]}}) == {[
		"volume {name} is a directory of the node",
		{"name": "docker"},
	]}
}
