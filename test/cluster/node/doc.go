// Package node adds a real node to a cluster: containerd and runc, kubelet, kube-proxy, a scheduler and DNS. Pods run, get
// addresses, are probed, pull their images, and Services lead to them.
//
// It belongs inside a sandbox (package sandbox), as it changes the network and the mounts of where it runs, and its
// processes are not all its children. The API server stands on the same side of kube-proxy's rules as the node, so it
// calls webhooks by the ClusterIP of their Service, as on a control plane that is a node too.
//
// # Names
//
// DNS answers for Services, as <service>.<namespace>.svc.cluster.local, and for the hosts that the options name. Nothing
// else exists: there is no way out of the sandbox.
//
// # Images
//
// Every image is pulled from a registry of the options, the one that holds the network of a pod (pause) among them.
package node
