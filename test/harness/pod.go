package harness

import (
	"encoding/json"
	"fmt"
	"strings"
)

type object = map[string]any

// PodName is the name of every Pod.
const PodName = "workspace-0000000000"

// Pod is a pod of a Coder workspace with these images, as an API server has it after its defaults, of about size bytes.
// What is missing in size is divided among the script that starts the agent and further env variables: one long string
// alone would cost a decoder less than a pod of that size does.
func Pod(images []string, size int) ([]byte, error) {
	build := func(script string, variables int) ([]byte, error) {
		var containers []any
		for i, image := range images {
			containers = append(containers, podContainer(i, image, script, variables))
			script, variables = "exec sleep infinity", 0
		}
		return json.Marshal(object{"apiVersion": "v1", "kind": "Pod", "metadata": podMetadata(), "spec": podSpec(containers), "status": object{
			"phase": "Pending", "qosClass": "Burstable",
		}})
	}
	text, err := build("", 0)
	if err != nil {
		return nil, err
	}
	const variable = 56 // bytes of one
	missing := max(0, size-len(text))
	return build(strings.Repeat("x", missing/2), missing/2/variable)
}

func podMetadata() object {
	return object{
		"name": PodName, "namespace": "team", "uid": "6a0b0a3c-9d3f-4f60-8a3c-2d1f4be5a0aa", "creationTimestamp": "2026-11-21T08:00:00Z",
		"labels": object{
			"app.kubernetes.io/name": "coder-workspace", "app.kubernetes.io/instance": "coder-workspace-1", "com.coder.resource": "true",
			"com.coder.workspace.name": "main", "com.coder.user.username": "jane",
		},
		"annotations": object{"com.coder.user.email": "jane@corp.example"},
		"managedFields": []any{object{
			"manager": "terraform-provider-kubernetes", "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T08:00:00Z", "fieldsType": "FieldsV1",
			"fieldsV1": object{
				"f:metadata": object{"f:labels": object{".": object{}, "f:app.kubernetes.io/name": object{}, "f:com.coder.resource": object{}}},
				"f:spec": object{"f:containers": object{`k:{"name":"dev"}`: object{
					".": object{}, "f:command": object{}, "f:image": object{}, "f:name": object{}, "f:resources": object{".": object{}, "f:limits": object{}},
				}}},
			},
		}},
	}
}

func podSpec(containers []any) object {
	return object{
		"containers": containers, "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
		"serviceAccountName": "default", "serviceAccount": "default", "schedulerName": "default-scheduler", "priority": 0,
		"enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority", "securityContext": object{"runAsUser": 1000, "fsGroup": 1000},
		"tolerations": []any{
			object{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
			object{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
		},
		"volumes": []any{
			object{"name": "home", "persistentVolumeClaim": object{"claimName": "coder-home"}},
			object{"name": "kube-api-access-x7k2p", "projected": object{"defaultMode": 420, "sources": []any{
				object{"serviceAccountToken": object{"expirationSeconds": 3607, "path": "token"}},
				object{"configMap": object{"name": "kube-root-ca.crt", "items": []any{object{"key": "ca.crt", "path": "ca.crt"}}}},
			}}},
		},
	}
}

func podContainer(i int, image, script string, variables int) object {
	env := []any{
		object{"name": "CODER_AGENT_TOKEN", "value": "b6d2f1b2-6a51-4a41-9a0e-0b4dbf4f5e11"},
		object{"name": "CODER_AGENT_URL", "value": "https://coder.corp.example"},
	}
	for n := range variables {
		env = append(env, object{"name": fmt.Sprintf("SETTING_%04d", n), "value": fmt.Sprintf("value-of-setting-%04d", n)})
	}
	name := "dev"
	if i > 0 {
		name = fmt.Sprintf("side-%d", i)
	}
	return object{
		"name": name, "image": image, "command": []any{"sh", "-c", script}, "env": env, "imagePullPolicy": "IfNotPresent",
		"resources":       object{"limits": object{"cpu": "4", "memory": "8Gi"}, "requests": object{"cpu": "250m", "memory": "512Mi"}},
		"securityContext": object{"runAsUser": 1000, "allowPrivilegeEscalation": false},
		"volumeMounts": []any{
			object{"name": "home", "mountPath": "/home/coder"},
			object{"name": "kube-api-access-x7k2p", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
		},
		"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
	}
}

// ExtraRule is the i-th of rules that look at every image and at the object, and find nothing: load for benchmarks.
func ExtraRule(i int) string {
	return fmt.Sprintf(`# METADATA
# title: Extra rule %[1]d
# custom:
#   id: extra%03[1]d
#   fix: Use another image.
package hallmark.rules.extra%03[1]d

deny contains finding if {
	some image in input.images
	image.repository == "forbidden/image-%[1]d"
	finding := {"image": image.where, "message": "is forbidden"}
}

deny contains {"message": "is labelled as forbidden"} if input.object.metadata.labels["forbidden-%[1]d"]
`, i)
}
