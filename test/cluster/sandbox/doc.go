// Package sandbox runs a test binary in namespaces of its own: network, mounts, processes. What a Kubernetes node does to
// its machine (addresses, nftables, mounts, hundreds of processes) is then done to nothing that anybody else sees, two
// runs do not meet, and all of it is gone when the test binary is, however that ends.
//
//	func TestMain(m *testing.M) {
//		os.Exit(sandbox.Run(sandbox.Config{Prepare: prepare, Main: func(dir string) int { … return m.Run() }}))
//	}
//
// The binary runs three times, which an environment variable tells apart:
//
//	outside   checks that the machine can do it, calls Prepare, which has the network, and starts the next one in new
//	          namespaces. When it dies, the kernel kills the next one (Pdeathsig).
//	init      is process 1 of the new namespaces, with which the kernel ends all others. It mounts, brings the network
//	          up, starts the last one, and waits for orphans.
//	inside    calls Main. Nothing but loopback, and Address on it, is there.
//
// Inside, the machine's files are as they are outside, except for what a node would litter: /run, /var/log and /var/lib
// are empty. The settings of the kernel that are not of a namespace, which kubelet wants to change, are files there, so
// that it changes those. What remains outside are directories of cgroups, which Run removes.
package sandbox
