package node

import (
	"encoding/json"
	"fmt"
	"path/filepath"
)

// containerdConfig is version 2, which containerd 1.6 to 2 read. restrict_oom_score_adj: without CAP_SYS_RESOURCE nobody
// may become more precious than he is, and a pod's sandbox tries.
const containerdConfig = `version = 2
root = %[1]q
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs",
]
[grpc]
  address = %[2]q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[3]q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[4]q
    conf_dir = %[5]q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = %[6]q
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %[7]q
`

func (n *node) startContainerd() error {
	plugins, err := n.options.Packages.CNI()
	if err != nil {
		return err
	}
	runc, err := n.options.Packages.Program("runc")
	if err != nil {
		return err
	}
	network, err := json.Marshal(podNetwork())
	if err != nil {
		return err
	}
	cni, err := n.write("cni/10-pods.conflist", network)
	if err != nil {
		return err
	}
	hosts := fmt.Sprintf("server = %[1]q\n[host.%[1]q]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %[2]q\n",
		"https://"+n.options.Registry, n.options.RegistryCA)
	registry, err := n.write(filepath.Join("registries", n.options.Registry, "hosts.toml"), []byte(hosts))
	if err != nil {
		return err
	}
	config, err := n.write("containerd.toml", fmt.Appendf(nil, containerdConfig,
		filepath.Join(n.options.Dir, "containerd"), n.socket, n.options.PauseImage, plugins, filepath.Dir(cni), runc,
		filepath.Dir(filepath.Dir(registry))))
	if err != nil {
		return err
	}
	return n.launch("containerd", "--config", config)
}

// podNetwork gives each pod a veth of its own, routed and not bridged, so that whatever goes between pods passes
// kube-proxy's rules.
func podNetwork() map[string]any {
	return map[string]any{
		"cniVersion": "1.0.0", "name": "pods",
		"plugins": []any{map[string]any{
			"type": "ptp", "ipMasq": false,
			"ipam": map[string]any{
				"type": "host-local", "dataDir": "/run/cni",
				"ranges": []any{[]any{map[string]any{"subnet": podRange}}},
				"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
			},
		}},
	}
}
