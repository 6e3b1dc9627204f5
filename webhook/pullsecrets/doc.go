// Package pullsecrets reads the credentials that a pod brings along: the secrets that its imagePullSecrets name, or those
// that its service account names.
//
//	client, err := pullsecrets.New(pullsecrets.Config{CacheTTL: 30 * time.Second})
//	defer client.Close()
//	found, err := client.Read(ctx, webhook.Pull{Namespace: "team", Secrets: []string{"corp-registry"}})
//
// # What is asked for
//
// Two paths of the Kubernetes API, with GET and one name each: a secret and a service account in the namespace of the
// request. Nothing is listed or watched. A name that is not a DNS name never gets into a path. The process shows its own
// service-account token, which goes to the API server alone: over TLS that the cluster's authority vouches for, through
// no proxy, and behind no redirect. Token and authority are read anew for every request, since both are rotated.
//
// # What counts
//
// A pod with secrets of its own is not given those of its service account (k8s.io/kubernetes/plugin/pkg/admission/
// serviceaccount, Admit). A secret that does not exist, or is of another type, is passed over as the kubelet does
// (k8s.io/kubernetes/pkg/kubelet, getPullSecretsForPod), and noted, for a message when the registry then refuses. A service
// account that does not exist is an error, as is every answer that is none: what the pod may read is then unknown.
//
// Answers are remembered for Config.CacheTTL, within bounds. Callers that want the same at the same time share one request.
// That something is not there, or failed, is never remembered.
//
// No error and no note holds anything of a secret but its name.
package pullsecrets
