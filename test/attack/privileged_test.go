package attack

import (
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestPrivileged: the rule is off until the configuration names it, and then judges each container.
func TestPrivileged(t *testing.T) {
	privileged := func(spec object) {
		spec["containers"].([]any)[0].(object)["securityContext"] = object{"privileged": true}
	}
	off := newWorld(t, registrytest.Config{}, nil)
	allowed().check(t, off.admit(t, off.pod(privileged)))
	on := newWorld(t, registrytest.Config{}, func(text string) string { return text + "\nrules: {privileged: enforce}\n" })
	denied("- containers[dev]: privileged: the container is privileged", "leave out securityContext.privileged").check(t, on.admit(t, on.pod(privileged)))
	allowed().check(t, on.admit(t, on.pod()))
}
