package cluster

import (
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// clusterName is the cluster's name in the kubeconfig.
const clusterName = "test"

// login is a user with the token that proves it.
type login struct {
	User
	token string
}

// newLogins gives the admin and every user a token.
func newLogins(users []User) []login {
	logins := []login{{User: User{Name: adminUser, Groups: []string{"system:masters"}}, token: rand.Text()}}
	for _, user := range users {
		logins = append(logins, login{User: user, token: rand.Text()})
	}
	return logins
}

// writeTokens writes the API server's token file: token, name, uid and a quoted list of groups. The server reads it at
// its start only, which is why users are options.
func writeTokens(path string, logins []login) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the token file: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	lines := csv.NewWriter(file)
	for _, l := range logins {
		if err := lines.Write([]string{l.token, l.Name, l.Name, strings.Join(l.Groups, ",")}); err != nil {
			return fmt.Errorf("write the token file: %w", err)
		}
	}
	lines.Flush()
	return lines.Error()
}

// newKubeconfig describes the cluster with one context per user, named as the user, the admin's being current. The
// authority's certificate is inside, so that the file alone is enough.
func newKubeconfig(server, authority string, logins []login) (*clientcmdapi.Config, error) {
	certificate, err := os.ReadFile(authority)
	if err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[clusterName] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: certificate}
	for _, l := range logins {
		config.AuthInfos[l.Name] = &clientcmdapi.AuthInfo{Token: l.token}
		config.Contexts[l.Name] = &clientcmdapi.Context{Cluster: clusterName, AuthInfo: l.Name}
	}
	config.CurrentContext = adminUser
	return config, nil
}

// restConfig turns one context into a client's configuration, without a client-side rate limit, which would measure
// itself in a load test.
func restConfig(config clientcmdapi.Config, user string) (*rest.Config, error) {
	rc, err := clientcmd.NewNonInteractiveClientConfig(config, user, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("configure a client for user %q: %w", user, err)
	}
	rc.QPS = -1
	return rc, nil
}

// bindRoles gives every user the cluster roles it asks for.
func bindRoles(ctx context.Context, client kubernetes.Interface, users []User) error {
	for _, user := range users {
		for _, role := range user.ClusterRoles {
			binding := &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "test:" + user.Name + ":" + role},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user.Name}},
			}
			_, err := client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("bind %s to user %s: %w", role, user.Name, err)
			}
		}
	}
	return nil
}
