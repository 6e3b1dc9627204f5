package nodee2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestUninstall: what comes with the chart goes with it, the controller's Secrets among it.
func TestUninstall(t *testing.T) {
	install(t)
	uninstall(t)
	eventually(t, func() error { // the garbage collector takes its time
		after, err := w.objects(t.Context())
		if err != nil {
			return err
		}
		var left []string
		for object := range after {
			if !w.before[object] {
				left = append(left, object)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
		}
		return nil
	})
}
