package cluster

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"time"
)

const (
	// adminUser is in every cluster and the kubeconfig's current context.
	adminUser = "admin"

	defaultServiceRange = "127.96.0.0/16"
	// defaultTimeout is ten times what a start takes on two quiet cores.
	defaultTimeout = time.Minute
)

// Options describes a cluster. Only Dir is required.
type Options struct {
	// Dir holds all state: keys, kubeconfig, etcd's data and one log per process. It must exist and serve one cluster.
	Dir string
	// Binaries is the directory with the programs. Empty means that package binaries provides them, building what is
	// absent.
	Binaries string
	// Controllers also starts kube-controller-manager, so that Deployments create pods and namespaces get a service
	// account, and leaves the ServiceAccount admission plugin on.
	Controllers bool
	// Users exist beside the admin.
	Users []User
	// ServiceRange is where ClusterIPs come from. Empty means 127.96.0.0/16. Two clusters at one time whose tests listen
	// on ClusterIPs should differ here.
	ServiceRange string
	// Address is where others than this process reach the API server: an address of this machine that is not loopback.
	// The service kubernetes then leads there. Empty means that nobody else does, and that service leads nowhere.
	Address string
	// APIServerArgs follow the flags of this package, and so override them.
	APIServerArgs []string
	// Timeout bounds the start once the programs are built. Zero means one minute.
	Timeout time.Duration
	// Log receives the progress of a build. Nil means silence; a test passes t.Output().
	Log io.Writer
}

// User is somebody who can log in with a token of the kubeconfig.
type User struct {
	Name   string
	Groups []string
	// ClusterRoles are bound to the user in all namespaces.
	ClusterRoles []string
}

// Developer is a user who may do in every namespace what the role edit allows: workloads, configuration and secrets,
// but neither namespaces nor RBAC. It binds the roles that edit is made of, since edit itself is an aggregation, empty
// until kube-controller-manager fills it.
func Developer(name string) User {
	return User{Name: name, ClusterRoles: []string{"system:aggregate-to-edit", "system:aggregate-to-view"}}
}

// complete returns the options with defaults filled in, or every problem at once.
func (o Options) complete() (Options, error) {
	var problems []error
	if o.Dir == "" {
		problems = append(problems, errors.New("Dir is empty: set it to a temporary directory"))
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		problems = append(problems, fmt.Errorf("Dir: %w", err))
	}
	o.Dir = dir
	if o.ServiceRange == "" {
		o.ServiceRange = defaultServiceRange
	}
	if _, err := netip.ParsePrefix(o.ServiceRange); err != nil {
		problems = append(problems, fmt.Errorf("ServiceRange: %w", err))
	}
	if _, err := netip.ParseAddr(o.Address); err != nil && o.Address != "" {
		problems = append(problems, fmt.Errorf("Address: %w", err))
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	seen := []string{adminUser}
	for _, user := range o.Users {
		if user.Name == "" || slices.Contains(seen, user.Name) {
			problems = append(problems, fmt.Errorf("Users: name %q is empty, repeated or %q", user.Name, adminUser))
		}
		seen = append(seen, user.Name)
	}
	return o, errors.Join(problems...)
}
