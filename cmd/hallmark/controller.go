package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-admission/hallmark/webhook/cluster"
)

func newController(io streams) *cobra.Command {
	c := cluster.Config{}
	level := "info"
	cmd := &cobra.Command{
		Use:   "controller --webhook-rules FILE",
		Short: "Issue the webhook's certificate and register the webhook",
		Long: `Controller keeps the webhook's serving certificate and its authority, in two Secrets, and renews both long before they
end, in steps that overlap, so that no admission fails. It writes the caBundles of the webhook configurations, and their
rules last, when a replica of the webhook answers: until then no API server calls it.

It creates no webhook configuration, and changes nothing in them but caBundle and rules. With --tls-secret and
--ca-secret empty, the certificates and the caBundle are somebody else's, and it only writes the rules.

Several replicas elect a leader by a Lease. No admission ever waits for the controller.`,
		Example: `  hallmark controller --webhook-rules rules.yaml
  hallmark controller --webhook-rules rules.yaml --kubeconfig ~/.kube/config --namespace hallmark-system --lease "" --deployment ""`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var logLevel slog.Level
			if err := logLevel.UnmarshalText([]byte(level)); err != nil {
				return hinted{err, "--log-level is debug, info, warn or error"}
			}
			v, _, _ := buildInfo()
			c.Agent = "hallmark-controller/" + v
			c.Log = slog.New(slog.NewJSONHandler(io.err, &slog.HandlerOptions{Level: logLevel}))
			return control(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.RulesFile, "webhook-rules", "", "`file` with the rules of each webhook, by its name; read again before every write")
	flags.StringVar(&c.WebhookConfiguration, "webhook-configuration", "hallmark", "`name` of the mutating and the validating webhook configuration")
	flags.StringVar(&c.Service, "service", "hallmark-webhook", "`name` of the webhook's Service, for which the certificate is issued")
	flags.StringVar(&c.TLSSecret, "tls-secret", "hallmark-tls", "`name` of the Secret with the serving certificate; empty when somebody else issues it")
	flags.StringVar(&c.CASecret, "ca-secret", "hallmark-ca", "`name` of the Secret with the authorities; empty when somebody else issues")
	flags.StringVar(&c.Deployment, "deployment", "hallmark-controller", "`name` of the Deployment that owns the Secrets and gets the Events; empty for none")
	flags.StringVar(&c.Lease, "lease", "hallmark-controller", "`name` of the Lease by which replicas elect a leader; empty for the only replica")
	flags.StringVar(&c.Namespace, "namespace", "", "`namespace` of all these; by default that of the pod, or of the kubeconfig's context")
	flags.DurationVar(&c.Lifetimes.CA, "ca-lifetime", 365*24*time.Hour, "how long an authority lives; it is replaced after two thirds")
	flags.DurationVar(&c.Lifetimes.Serving, "cert-lifetime", 90*24*time.Hour, "how long a serving certificate lives; it is replaced after two thirds")
	flags.StringVar(&c.MetricsListen, "metrics-listen", ":9090", "`address` of /metrics, /livez and /readyz, plain HTTP; empty for none")
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "`file` with the way to the cluster; by default that of a pod")
	flags.StringVar(&c.Dial, "dial", "", "`address` to dial instead of the Service, for tests without a cluster network")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	if err := cmd.MarkFlagRequired("webhook-rules"); err != nil {
		panic(err) // a name that is not a flag
	}
	return cmd
}

// control runs the controller until ctx ends.
func control(ctx context.Context, config cluster.Config) error {
	c, err := cluster.New(config)
	if err != nil {
		return err
	}
	address := ""
	if a := c.Addr(); a != nil {
		address = a.String()
	}
	config.Log.Info("controlling", "metrics", address)
	return c.Run(ctx)
}
