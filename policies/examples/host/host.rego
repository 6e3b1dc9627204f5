# METADATA
# title: Workspaces stay off their node
# description: |
#   A pod may neither mount directories of its node nor use the node's network, processes or ports: whoever is in the
#   workspace would be on the node. This rule reads the object itself, of pods and of the templates of workloads.
# custom:
#   id: host
#   fix: Use a PersistentVolumeClaim instead of hostPath, and leave out hostNetwork, hostPID and hostIPC.
package hallmark.rules.host

deny contains {"message": "the pod uses {field} of its node", "args": {"field": field}} if {
	some field in ["hostNetwork", "hostPID", "hostIPC"]
	_spec[field] == true
}

deny contains {"message": "volume {name} is a directory of the node", "args": {"name": volume.name}} if {
	some volume in _spec.volumes
	volume.hostPath
}

_spec := input.object.spec if input.request.kind == "Pod"

_spec := input.object.spec.jobTemplate.spec.template.spec if input.request.kind == "CronJob"

_spec := input.object.template.spec if input.request.kind == "PodTemplate"

_spec := input.object.spec.template.spec if not input.request.kind in {"Pod", "CronJob", "PodTemplate"}
