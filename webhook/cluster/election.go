package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Times of the election. Nobody waits for the leader, so they are long; and two leaders do no harm, so they leave it to the
// next one to wait and not to the old one to be sure.
const (
	leaseDuration = 30 * time.Second // after which a silent leader is none
	leaseRenewal  = 10 * time.Second
	leasePatience = 20 * time.Second // after which a leader that cannot renew stops writing
)

// An election is a Lease that replicas of the controller hold in turn, as client-go's leaderelection does it. That package
// links all generated clients and informers, which would make the binary 20 MB larger.
type election struct {
	api      *api
	path     string // of the Lease; "" for no election
	identity string
	log      *slog.Logger
	changed  func() // called when this one has become the leader

	renewed atomic.Int64 // time.Now of the last success, in nanoseconds since start
	start   time.Time

	version  string    // of the Lease as last seen, and
	observed time.Time // since when it is that; by our own clock, as holders' clocks may differ
	said     string
}

func newElection(a *api, c Config, identity string, changed func()) *election {
	e := &election{api: a, identity: identity, log: c.Log, changed: changed, start: time.Now()}
	if c.Lease != "" {
		e.path = "/apis/coordination.k8s.io/v1/namespaces/" + url.PathEscape(c.Namespace) + "/leases/" + url.PathEscape(c.Lease)
	}
	return e
}

// leads says whether this one may write.
func (e *election) leads() bool {
	if e.path == "" {
		return true
	}
	renewed := e.renewed.Load()
	return renewed > 0 && time.Since(e.start)-time.Duration(renewed) < leasePatience
}

// run takes part until ctx ends, and then gives the Lease back.
func (e *election) run(ctx context.Context) {
	if e.path == "" {
		return
	}
	ticker := time.NewTicker(leaseRenewal / 2)
	defer ticker.Stop()
	for {
		e.attempt(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			e.release(ctx)
			return
		}
	}
}

// attempt renews the Lease or takes one that nobody renews.
func (e *election) attempt(ctx context.Context) {
	before := e.leads()
	ctx, cancel := context.WithTimeout(ctx, leaseRenewal)
	defer cancel()
	began := time.Since(e.start)
	holds, err := e.hold(ctx)
	switch {
	case apierrors.IsConflict(err): // somebody was faster
	case apierrors.IsNotFound(err):
		e.complain("there is no Lease, so every replica leads; helm upgrade makes it again", err)
	case err != nil && ctx.Err() == nil:
		e.complain("the Lease of the leader cannot be held", err)
	case err == nil:
		e.complain("", nil)
	}
	if holds {
		e.renewed.Store(int64(max(began, 1)))
	} else if err == nil {
		e.renewed.Store(0)
	}
	if after := e.leads(); after != before {
		e.log.Info("leadership", "leader", after, "identity", e.identity)
		if after {
			e.changed()
		}
	}
}

// hold says whether the Lease is ours now. Without a Lease everybody leads, which does less harm than if nobody did.
func (e *election) hold(ctx context.Context) (bool, error) {
	var lease coordinationv1.Lease
	err := e.api.do(ctx, call{method: http.MethodGet, path: e.path}, &lease)
	if err != nil {
		return apierrors.IsNotFound(err), err
	}
	now := time.Now()
	if lease.ResourceVersion != e.version {
		e.version, e.observed = lease.ResourceVersion, now
	}
	holder := value(lease.Spec.HolderIdentity)
	switch {
	case holder != "" && holder != e.identity && now.Sub(e.observed) < e.patience(lease):
		return false, nil
	case holder == e.identity && e.leads() && now.Sub(e.observed) < leaseRenewal:
		return true, nil // renewed a moment ago
	}
	e.claim(&lease, holder)
	if err := e.api.do(ctx, call{method: http.MethodPut, path: e.path, query: manager(), body: lease}, &lease); err != nil {
		return false, err
	}
	e.version, e.observed = lease.ResourceVersion, now
	return true, nil
}

// patience is how long a Lease of another may stay unchanged: as long as its holder says.
func (e *election) patience(lease coordinationv1.Lease) time.Duration {
	if seconds := value(lease.Spec.LeaseDurationSeconds); seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	return leaseDuration
}

func (e *election) claim(lease *coordinationv1.Lease, holder string) {
	now := metav1.NewMicroTime(e.api.now())
	if holder != e.identity {
		transitions := value(lease.Spec.LeaseTransitions) + 1
		lease.Spec.AcquireTime, lease.Spec.LeaseTransitions = &now, &transitions
	}
	seconds := int32(leaseDuration / time.Second)
	lease.APIVersion, lease.Kind = "coordination.k8s.io/v1", "Lease"
	lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.LeaseDurationSeconds = &e.identity, &now, &seconds
}

// release lets the next one lead at once. The context that ended does not end it.
func (e *election) release(ctx context.Context) {
	if !e.leads() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	e.renewed.Store(0)
	var lease coordinationv1.Lease
	err := e.api.do(ctx, call{method: http.MethodGet, path: e.path}, &lease)
	if err != nil || value(lease.Spec.HolderIdentity) != e.identity {
		return
	}
	nobody, soon := "", int32(1)
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &nobody, &soon
	if err := e.api.do(ctx, call{method: http.MethodPut, path: e.path, query: manager(), body: lease}, nil); err != nil {
		e.log.Warn("the Lease could not be given back; the next leader waits for its end", "error", err)
	}
}

// complain says a thing once.
func (e *election) complain(what string, err error) {
	said := what
	if err != nil {
		said = fmt.Sprint(what, err)
	}
	if said != e.said && said != "" {
		e.log.Warn(what, "error", err)
	}
	e.said = said
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
