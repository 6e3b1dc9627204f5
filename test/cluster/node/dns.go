package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	clusterDomain = "cluster.local"
	// ttl is short, as Services come and go.
	ttl = 5
	// lookupTimeout is shorter than what a resolver waits.
	lookupTimeout = 2 * time.Second
)

// DNS answers for Services and for some hosts. It has addresses of version 4 only and no other records.
type DNS struct {
	connection *net.UDPConn
	client     kubernetes.Interface
	hosts      map[string]netip.Addr // by name, without the last dot
	done       chan struct{}
}

// StartDNS answers on port 53 of an address until Close.
func StartDNS(address string, client kubernetes.Interface, hosts map[string]netip.Addr) (*DNS, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return nil, fmt.Errorf("start DNS: %w", err)
	}
	connection, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 53)))
	if err != nil {
		return nil, fmt.Errorf("start DNS: %w", err)
	}
	d := &DNS{connection: connection, client: client, hosts: hosts, done: make(chan struct{})}
	go d.serve()
	return d, nil
}

// Close ends it.
func (d *DNS) Close() error {
	err := d.connection.Close()
	<-d.done
	return err
}

func (d *DNS) serve() {
	defer close(d.done)
	buffer := make([]byte, 1500)
	for {
		n, from, err := d.connection.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // somebody is gone whom an answer was for
		}
		if answer := d.answer(buffer[:n]); answer != nil {
			_, _ = d.connection.WriteToUDPAddrPort(answer, from) // whoever hears nothing asks again
		}
	}
}

// answer makes the message for a question, or nil for what is none.
func (d *DNS) answer(message []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{question},
	}
	ip, err := d.lookUp(strings.ToLower(strings.TrimSuffix(question.Name.String(), ".")))
	switch {
	case err != nil:
		answer.RCode = dnsmessage.RCodeNameError
	case question.Type == dnsmessage.TypeA:
		answer.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: ttl},
			Body:   &dnsmessage.AResource{A: ip.As4()},
		}}
	}
	packed, err := answer.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func (d *DNS) lookUp(name string) (netip.Addr, error) {
	if ip, ok := d.hosts[name]; ok {
		return ip, nil
	}
	labels := strings.Split(strings.TrimSuffix(name, ".svc."+clusterDomain), ".")
	if len(labels) != 2 || !strings.HasSuffix(name, clusterDomain) {
		return netip.Addr{}, fmt.Errorf("%s is no Service", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	service, err := d.client.CoreV1().Services(labels[1]).Get(ctx, labels[0], metav1.GetOptions{})
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(service.Spec.ClusterIP)
}
