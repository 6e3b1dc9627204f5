// Package binaries builds the Kubernetes programs that the tests run, once, and keeps them.
//
// The programs come from the module cache: test/cluster/go.mod pins them as tools, and helm/go.mod pins Helm. So a fresh
// machine needs Go and a module proxy, and no container registry. A cold build takes 10 to 20 minutes on two cores; hence
// the cache:
//
//	<cache>/<key>/etcd
//	<cache>/<key>/kube-apiserver
//	<cache>/<key>/.lock
//
// The key is a hash of everything that decides what the programs contain: both go.mod and go.sum, the Go version, the
// platform and the build recipe of this package. A file in that directory is therefore never stale. It is also never half
// written: a program is built in a temporary directory beside its destination and renamed. So the presence of a file is
// the whole test of being up to date, and asking for one more program later builds only that one.
//
// A lock keeps two runs from building the same thing at once; the second waits and then finds the work done.
// Directories of old keys are not removed, as another checkout may use them. Deleting the cache is always safe.
package binaries
