package attack

import (
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestUsers: root is refused wherever it comes from, and so is what could turn out to be root.
func TestUsers(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	security := func(container object) func(object) {
		return func(spec object) { spec["containers"].([]any)[0].(object)["securityContext"] = container }
	}
	pod := func(context object) func(object) { return with("securityContext", context) }
	of := func(name string) func(object) { return image(w.Ref("golden/" + name + ":v1.0.0")) }
	for title, c := range map[string]struct {
		set  []func(object)
		want want
	}{
		"numeric user of the image":                {[]func(object){of("ws")}, allowed()},
		"uid 0 on the container":                   {[]func(object){of("ws"), security(object{"runAsUser": 0})}, denied("user: runs as root (securityContext of the container)")},
		"uid 0 on the pod":                         {[]func(object){of("ws"), pod(object{"runAsUser": 0})}, denied("user: runs as root (securityContext of the pod)")},
		"container overrides a safe pod":           {[]func(object){of("ws"), pod(object{"runAsUser": 1000}), security(object{"runAsUser": 0})}, denied("user: runs as root")},
		"container overrides an unsafe pod":        {[]func(object){of("root"), pod(object{"runAsUser": 0}), security(object{"runAsUser": 1000})}, allowed()},
		"runAsNonRoot is no user":                  {[]func(object){of("root"), pod(object{"runAsNonRoot": true})}, denied("user: runs as root (USER of the image)")},
		"runAsNonRoot false overrides":             {[]func(object){of("root"), pod(object{"runAsNonRoot": true}), security(object{"runAsNonRoot": false})}, denied("user: runs as root")},
		"image without a user":                     {[]func(object){of("nouser")}, denied("user: runs as root (USER of the image)")},
		"named user":                               {[]func(object){of("named")}, denied("user: runs as app, a name that could stand for root")},
		"named user with runAsNonRoot":             {[]func(object){of("named"), pod(object{"runAsNonRoot": true})}, denied("user: runs as app")},
		"named user with a uid in the pod":         {[]func(object){of("named"), pod(object{"runAsUser": 1000})}, allowed()},
		"named user with a uid in the catalogue":   {[]func(object){of("coder")}, denied("set securityContext.runAsUser: 1000")},
		"one platform of an index is root":         {[]func(object){of("multiroot")}, denied("user: runs as root (USER of the image for linux/arm64)")},
		"one platform is root, but not in the pod": {[]func(object){of("multiroot"), pod(object{"runAsUser": 1000})}, allowed()},
		"Windows administrator":                    {[]func(object){of("ws"), security(object{"windowsOptions": object{"runAsUserName": "cOnTaInErAdMiNiStRaToR"}})}, denied("user: runs as root")},
		"Windows domain administrator":             {[]func(object){of("ws"), with("os", object{"name": "windows"}), pod(object{"windowsOptions": object{"runAsUserName": `CORP\Administrator`}})}, denied("user: runs as root")},
		"Windows user on Linux hides nothing":      {[]func(object){of("root"), security(object{"windowsOptions": object{"runAsUserName": "ContainerUser"}})}, denied("user: runs as root")},
		"Windows user":                             {[]func(object){of("root"), with("os", object{"name": "windows"}), pod(object{"windowsOptions": object{"runAsUserName": "ContainerUser"}})}, allowed()},
		"Windows without a user":                   {[]func(object){of("nouser"), with("os", object{"name": "windows"})}, denied("user: runs as root")},
		"uid 0 in a user namespace":                {[]func(object){of("ws"), with("hostUsers", false), security(object{"runAsUser": 0})}, denied("user: runs as root")},
		"group 0 is not judged":                    {[]func(object){of("ws"), pod(object{"runAsGroup": 0, "fsGroup": 0, "supplementalGroups": []int{0}})}, allowed()},
	} {
		t.Run(title, func(t *testing.T) {
			c.want.check(t, w.admit(t, w.pod(c.set...)))
		})
	}
}

// TestUserSpellings: USER of an image config in every spelling.
func TestUserSpellings(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	for user, want := range map[string]want{
		"0": denied("root"), "0:0": denied("root"), "00": denied("root"), "0000": denied("root"), "+0": denied("root"), "-0": denied("root"),
		"0:1000": denied("root"), "root": denied("root"), "root:root": denied("root"), ":0": denied("root"), "": denied("root"),
		"app": denied("a name"), "Root": denied("a name"), "0x0": denied("a name"), " 0": denied("a name"), "1e3": denied("a name"),
		"-1": denied("a number out of range"), "99999999999999999999": denied("a number out of range"),
		// 32 bits of these are 0 or another user (CVE-2024-40635).
		"4294967296": denied("root"), "4294968296": denied("a number out of range"), "2147483648": denied("a number out of range"),
		"2147483647": allowed(), "9223372036854775807": denied("a number out of range"),
		"1000": allowed(), "1000:0": allowed(), "65532:65532": allowed(), "01000": allowed(),
	} {
		t.Run("user "+user, func(t *testing.T) {
			digest, err := w.Registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/ws", User: user})
			if err != nil {
				t.Fatal(err)
			}
			tag := "v7.0." + decimal(digest)
			if err := w.Registry.Tag(t.Context(), "golden/ws", tag, digest); err != nil {
				t.Fatal(err)
			}
			if err := w.Registry.Sign(t.Context(), "golden/ws", digest, w.Key, registrytest.SignOptions{}); err != nil {
				t.Fatal(err)
			}
			want.check(t, w.admit(t, w.pod(image(w.Ref("golden/ws:"+tag)))))
		})
	}
}

// decimal makes a number of a digest, for a tag of its own.
func decimal(digest string) string {
	n := ""
	for _, c := range digest[7:15] {
		n += string('0' + c%10)
	}
	return "1" + n
}

// TestUserWithoutRegistry: what the pod says is enough for the user, and what could not be looked at is never called root
// (USR-018).
func TestUserWithoutRegistry(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	must(t, w.Registry.Close())
	for title, set := range map[string]func(object){
		"the pod says it":   with("securityContext", object{"runAsUser": 1000}),
		"the image says it": func(object) {},
	} {
		t.Run(title, func(t *testing.T) {
			got := w.admit(t, w.pod(image(w.Pinned("golden/old:v1.0.0")), set))
			want{code: 503, says: []string{"could not be checked", "try again"}}.check(t, got)
			if strings.Contains(got.Message, "as root") || strings.Contains(got.Message, "not signed") {
				t.Errorf("it says more than is known:\n%s", got.Message)
			}
			if knows := !strings.Contains(got.Message, "user:"); knows != (title == "the pod says it") {
				t.Errorf("of the user it says\n%s", got.Message)
			}
		})
	}
}
