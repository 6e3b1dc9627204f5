package registry

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// filteringDialer refuses addresses that a registry's name must not lead to. It looks at the address that is about to
// be dialled, after the name was resolved, so a name that resolves differently each time gains nothing.
func filteringDialer(timeout time.Duration, resolver *net.Resolver) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		asked, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		dialer := net.Dialer{Timeout: timeout, KeepAlive: keepAliveProbePeriod, Resolver: resolver}
		dialer.ControlContext = func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
			return checkResolved(asked, resolved)
		}
		return dialer.DialContext(ctx, network, address)
	}
}

// checkResolved says whether the host that was asked for may be contacted at this address. Only configured hosts and
// the proxy are ever dialled; one that is itself written as an address may be any, and localhost is loopback.
func checkResolved(asked, resolved string) error {
	at, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return fmt.Errorf("unreadable address: %w", err)
	}
	address := at.Addr().Unmap().WithZone("")
	if literal, err := netip.ParseAddr(asked); err == nil && literal.Unmap() == address {
		return nil
	}
	if asked == "localhost" && address.IsLoopback() {
		return nil
	}
	if kind := forbiddenKind(address); kind != "" {
		return &forbiddenAddressError{address: address, kind: kind}
	}
	return nil
}

// A forbiddenAddressError says that a name leads where a registry cannot be.
type forbiddenAddressError struct {
	address netip.Addr
	kind    string
}

func (e *forbiddenAddressError) Error() string {
	return fmt.Sprintf("%s is a %s address", e.address, e.kind)
}

// forbiddenKind names the kinds of address at which no registry is, but things that trust whoever can reach them:
// the process itself, its node, the cloud's metadata services. Private networks are where registries live.
func forbiddenKind(a netip.Addr) string {
	if embedded, ok := embeddedIPv4(a); ok {
		a = embedded
	}
	switch {
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast():
		return "link-local"
	case a.IsMulticast():
		return "multicast"
	case a.IsUnspecified(), a.Is4() && a.As4()[0] == 0, a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "reserved"
	}
	switch a.String() {
	case "100.100.100.200", // Alibaba
		"168.63.129.16", // Azure
		"192.0.0.192",   // Oracle
		"fd00:ec2::254", // AWS
		"fd20:ce::254",  // Google
		"fd00:42::42":   // Scaleway
		return "cloud metadata"
	}
	return ""
}

// embeddedIPv4 takes the IPv4 address out of a NAT64 address (RFC 6052, 64:ff9b::/96), behind which it is reached.
func embeddedIPv4(a netip.Addr) (netip.Addr, bool) {
	if !netip.PrefixFrom(netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b}), 96).Contains(a) {
		return netip.Addr{}, false
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:])), true
}
