// Package registrytest is a container registry with signed images, in memory, on loopback: for tests and for the demo.
//
// It speaks the real protocol over real connections (TLS with a throw-away authority unless Config.PlainHTTP is set),
// so what is proved against it holds for a registry elsewhere:
//
//	registry, err := registrytest.New(registrytest.Config{})
//	defer registry.Close()
//
//	digest, err := registry.PushImage(ctx, registrytest.Image{Repository: "golden/base", Tag: "v1.2.3", User: "1000"})
//	key, publicPEM, err := registrytest.NewKey()
//	err = registry.Sign(ctx, "golden/base", digest, key, registrytest.SignOptions{})
//
// The client under test is given Host and CAPEM, and the verifier publicPEM.
//
// # What is pushed
//
// The same Image always has the same digest: nothing in it depends on the time or on chance. Another tag, user, label
// or layer makes another digest. Sign writes the manifest sha256-<hex>.sig as cosign v2 does; signatures accumulate in it.
// PushManifest, PushBlob and Attach write anything at all, broken things too.
//
// Pushing goes past the network, Config.Auth and Config.Intercept: only what clients do is recorded and disturbed.
//
// # Making trouble
//
// Config.Intercept wraps the registry in any handler: one that waits, fails, redirects or lies. Requests lists what
// clients asked and what status they got, in the order in which the answers ended; Reset forgets it.
//
//	registry, err := registrytest.New(registrytest.Config{
//		Intercept: func(next http.Handler) http.Handler {
//			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//				http.Error(w, "", http.StatusServiceUnavailable)
//			})
//		},
//	})
//
// Config.Auth asks clients for a password, either with every request (Basic) or at a token endpoint (Bearer) whose
// tokens open one repository each.
package registrytest
