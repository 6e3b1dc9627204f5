package node

import (
	"encoding/json"
	"path/filepath"

	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
)

// object is a piece of JSON.
type object = map[string]any

// startKubelet runs kubelet without what guards a machine that others use too: nothing is evicted and no image is
// collected. Whoever reaches its port may do anything; in the sandbox that is the API server, and the pods.
func (n *node) startKubelet() error {
	path := func(name string) string { return filepath.Join(n.options.Dir, name) }
	config, err := json.Marshal(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address":                  n.options.Address,
		"authentication":           object{"anonymous": object{"enabled": true}, "webhook": object{"enabled": false}},
		"authorization":            object{"mode": "AlwaysAllow"},
		"containerRuntimeEndpoint": "unix://" + n.socket,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               n.options.CgroupParent,
		"enforceNodeAllocatable":   []string{},
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"podLogsDir":               filepath.Join(n.Dir(), "pods"),
		"volumePluginDir":          path("volume-plugins"),
		"resolvConf":               "",
		"clusterDomain":            clusterDomain,
		"clusterDNS":               []string{n.options.Address},
		"imageMinimumGCAge":        "100h",

		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"evictionHard": object{
			"memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
			"imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
		"syncFrequency":   "10s", // within which a mounted Secret follows, and what makes the rotation of one take a minute
		"registryPullQPS": 0,
		"eventRecordQPS":  0,
		"kubeAPIQPS":      100,
		"kubeAPIBurst":    200,
	})
	if err != nil {
		return err
	}
	file, err := n.write("kubelet.json", config)
	if err != nil {
		return err
	}
	return n.launch(binaries.Kubelet, "--config="+file, "--kubeconfig="+n.Kubeconfig(), "--root-dir="+path("kubelet"),
		"--cert-dir="+path("kubelet/pki"), "--hostname-override="+Name, "--node-ip="+n.options.Address)
}

// startProxy leaves alone what belongs to the whole machine: the size of the table of connections.
func (n *node) startProxy() error {
	config, err := json.Marshal(object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode":             "nftables",
		"clientConnection": object{"kubeconfig": n.Kubeconfig()},
		"clusterCIDR":      podRange,
		"hostnameOverride": Name,
		"conntrack":        object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	})
	if err != nil {
		return err
	}
	file, err := n.write("kube-proxy.json", config)
	if err != nil {
		return err
	}
	return n.launch(binaries.Proxy, "--config="+file)
}
