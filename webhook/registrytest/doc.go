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
// or layer makes another digest. PushManifest, PushBlob, Attach and AttachReferrer write anything at all, broken things
// too.
//
// Pushing goes past the network, Config.Auth and Config.Intercept: only what clients do is recorded and disturbed.
//
// # Signatures
//
// There are four places for what is said about an image, and each is written as cosign writes it:
//
//	Sign, SignKeyless        a layer of the manifest sha256-<hex>.sig
//	Attest                   a layer of the manifest sha256-<hex>.att
//	SignBundle               a sigstore bundle in a manifest of its own, which refers to the image
//	Attest{Bundle: true}     the same, with another statement
//
// Layers accumulate. What refers to an image is found through the referrers API with Config.Referrers, and without it
// in the list sha256-<hex>, which AttachReferrer keeps as clients have to.
//
// Who signs keyless needs an authority, and a verifier needs to trust it. Both come from NewSigstore:
//
//	sigstore, err := registrytest.NewSigstore(registrytest.SigstoreConfig{})
//	trustedRoot, err := sigstore.TrustedRootJSON()
//	err = registry.SignKeyless(ctx, "golden/base", digest, sigstore, registrytest.KeylessOptions{
//		Certificate: registrytest.Certificate{Identity: "dev@example.com", Issuer: "https://example.com"},
//	})
//	err = registry.SignBundle(ctx, "golden/base", digest, registrytest.BundleOptions{
//		Signer:  registrytest.Signer{Key: key},
//		Witness: registrytest.Witness{Log: sigstore, Timestamp: sigstore},
//	})
//
// Signer says who signs, Certificate what an authority certifies, Witness who logs and stamps it and when, Statement
// what is said in an envelope. The zero value of each is what cosign does; every field makes one thing otherwise, so
// that a test takes a good signature and spoils one thing in it. For all else there is Mutate. With SigstoreConfig.Now
// no time comes from the clock.
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
