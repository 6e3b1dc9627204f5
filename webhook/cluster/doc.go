// Package cluster is the controller: the part of the product that writes to the Kubernetes API, and its only importer of
// client-go. It is never in the path of an admission.
//
//	controller, err := cluster.New(cluster.Config{…})
//	err = controller.Run(ctx)
//
// It does two things. It issues the serving certificate of the webhook and keeps the caBundles of the webhook
// configurations right, and it gives the configurations their rules, last, when a replica answers.
//
// # Certificates
//
// Nobody learns of a change at once. An API server hears of a new caBundle when its watch says so; a replica sees a new
// certificate when its kubelet has refreshed the mount. So a rotation overlaps, and each step waits until the one before it
// is known to be everywhere:
//
//  1. A new authority is made when the newest has used two thirds of its life, and stored.
//  2. Both configurations get it beside the old one, and are read back.
//  3. It issues the serving certificate when the configurations have held it for Lifetimes.settle: by then no API server
//     is left that has not heard of it. The key of the old one is thrown away.
//  4. The old one leaves the configurations when its last certificate has been replaced for Lifetimes.retain: by then no
//     mount still holds it.
//
// plan.go decides all of this as a pure function from what is observed to the next single write. Each write may be the
// last before a crash: who comes next observes and goes on. Nothing is remembered but what stands in the cluster, and every
// write demands that the object is as it was read (resourceVersion), so that two leaders at once do no harm: leader election
// only saves them the conflicts.
//
// The order of reading matters to that. An authority is stored before it is published, and published before it issues, so
// the Secret of authorities is read last: whatever the configurations and the serving certificate show, the Secret explains.
//
// # Activation
//
// The chart makes the configurations without rules, which calls nobody. The controller dials the Service as an API server
// would, verifying the certificate against the caBundle that stands in the configuration, and patches the rules in when
// GET /readyz is answered with 200: first those of the mutating half, since the validating one refuses what is not pinned.
// Rules that somebody has removed come back in the same way. With the rules of the validating half comes the annotation
// hallmark.dev/activated, by which the backstop of the chart tells an installation that has not begun from one that ended.
//
// # Patches
//
// Only that annotation, and caBundle and rules of entries that exist, are patched, by strategic merge with the entry's name as
// the key, under the field manager hallmark-controller. Helm and GitOps tools compare what their manifests mention, and mention
// none of these; managedFields says whose they are. Server-side apply would say the same and could create a configuration, or an entry, that
// was just deleted.
//
// # Inspection
//
// An Inspector reads for hallmark doctor, with the rights of whoever runs it, and names the right that is missing.
package cluster
