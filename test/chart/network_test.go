package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// say gives the rules of a NetworkPolicy: "in from any to 9443", "out to 10.0.0.0/8 on 443".
func say(p *networkingv1.NetworkPolicy) []string {
	var lines []string
	line := func(way string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
		var who, where []string
		for _, peer := range peers {
			switch {
			case peer.IPBlock != nil:
				who = append(who, peer.IPBlock.CIDR)
			case peer.NamespaceSelector != nil:
				who = append(who, fmt.Sprintf("namespaces %v", peer.NamespaceSelector.MatchLabels))
			default:
				who = append(who, peer.PodSelector.MatchLabels["app.kubernetes.io/component"])
			}
		}
		for _, port := range ports {
			where = append(where, fmt.Sprintf("%s/%d", *port.Protocol, port.Port.IntVal))
		}
		if who == nil {
			who = []string{"any"}
		}
		lines = append(lines, way+" "+strings.Join(who, ",")+" "+strings.Join(where, ","))
	}
	for _, rule := range p.Spec.Ingress {
		line("in", rule.From, rule.Ports)
	}
	for _, rule := range p.Spec.Egress {
		line("out", rule.To, rule.Ports)
	}
	return lines
}

// TestNetwork: in come API servers and Prometheus; out go DNS, registries on the ports of the configuration, and the
// Kubernetes API from the controller alone.
func TestNetwork(t *testing.T) {
	for values, want := range map[string]map[string][]string{
		``: {
			"webhook":    {"in any TCP/9443", "in namespaces map[] TCP/9090", "out any UDP/53,TCP/53"},
			"controller": {"in namespaces map[] TCP/9090", "out any UDP/53,TCP/53", "out any TCP/443,TCP/6443", "out webhook TCP/9443"},
		},
		enforceValues: {
			"webhook": {
				"in 10.0.0.0/28,controller TCP/9443", "in namespaces map[name:monitoring] TCP/9090", "out any UDP/53,TCP/53",
				"out 10.1.0.0/16 TCP/443,TCP/5000,TCP/8200,TCP/8443", "out any TCP/443,TCP/6443",
			},
			"controller": {"in namespaces map[name:monitoring] TCP/9090", "out any UDP/53,TCP/53", "out any TCP/443,TCP/6443", "out webhook TCP/9443"},
		},
		`{config: {registries: [{host: plain.example, plainHTTP: true, blobHosts: ["s3.example:9000"]}], signers: {a: {kms: "awskms:///x"}},
			policies: {bundles: [{url: "https://policies.example:8443/bundle.tar.gz"}]}, decisionLog: {url: "https://logs.example:8444/v1/logs"}}, webhook: {port: 10250},
			networkPolicy: {kubernetesCIDRs: [10.9.0.1/32], kubernetesPorts: [16443], extraEgress: [{to: [{ipBlock: {cidr: 10.2.0.0/16}}]}]}}`: {
			"webhook": {
				"in any TCP/10250", "in namespaces map[] TCP/9090", "out any UDP/53,TCP/53", "out any TCP/443,TCP/80,TCP/8443,TCP/8444,TCP/9000", "out 10.2.0.0/16 ",
			},
			"controller": {"in namespaces map[] TCP/9090", "out any UDP/53,TCP/53", "out 10.9.0.1/32 TCP/16443", "out webhook TCP/10250"},
		},
	} {
		i := install(t, values)
		for component, want := range want {
			p := get[*networkingv1.NetworkPolicy](i, "hallmark-"+component)
			if got := say(p); !slices.Equal(got, want) {
				t.Errorf("%s with %s:\n got %q\nwant %q", component, values, got, want)
			}
			if !matches(p.Spec.PodSelector.MatchLabels, i.labels(component)) || len(p.Spec.PolicyTypes) != 2 {
				t.Errorf("%s: %v %v", component, p.Spec.PodSelector, p.Spec.PolicyTypes)
			}
		}
	}
	if install(t, `{networkPolicy: {enabled: false}}`).names()["NetworkPolicy/hallmark-webhook"] {
		t.Error("what was switched off is there")
	}
}
