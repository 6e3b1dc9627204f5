// Package registry reads images from the registries that the configuration names, and from nowhere else.
//
//	client, err := registry.New(registry.Config{Hosts: []registry.Host{{
//		Host: "registry.corp.example:5000", CAFile: "/etc/hallmark/ca.pem", CredentialsFile: "/etc/hallmark/config.json",
//	}}})
//	content, err := client.ReadImage(ctx, ref, webhook.WithConfig)
//
// A registry is not trusted. Whoever can push to it, or answers in its place, decides every byte that comes from it;
// the package makes of these bytes either facts that are proved by a digest, or a *webhook.ReadError that a developer
// can act on. It never guesses, and never takes one failure for another: an image that could not be looked at is
// Unavailable or Unauthorized, not missing.
//
// # Where requests go
//
// Each Host has its own connections, its own authorities and its own list of origins (scheme, host and port): itself,
// its TokenHosts and its BlobHosts. Client.host finds nothing for other hosts, so nothing is resolved or dialled for
// them; host.roundTrip looks the origin up again for every single request, redirects and token requests among them.
// TLS is never left out because a host looks local, and plain HTTP is never tried after TLS. The dialer refuses
// loopback, link-local and metadata addresses after the name was resolved. Behind a proxy it is the proxy that
// resolves names; its own rules apply then.
//
// # Credentials
//
// There is no ping: the manifest is asked for at once, and the challenge of a 401 is remembered for the host.
// Credentials go to the registry's own origin and to TokenHosts; tokens, which open one repository for pulling, only
// to the registry's own origin. A token is fetched once for all who need it, on a context of its own, and kept until
// it expires or is refused. A failure is never kept. Credentials come from the "auths" of a Docker config: user and
// password, identitytoken (OAuth2) or registrytoken, for a host or for a path below it. Helper programs are not run.
//
// # What comes back
//
// Every body has a limit, checked while it is read, and compressed answers are refused, so no answer grows in memory.
// Every manifest and blob is held against its digest. Documents are read case-sensitively and refused when another
// reader could understand them differently: duplicate or differently spelled members, the members of several kinds of
// manifest, a type inside that is not the type outside, an index that gives an image another platform than its config.
//
// A list of referrers is the one thing without a digest: it may leave out or make up what it likes, since what it names
// is read by digest. Its pages come from the place that was asked, are few, and are all there or an error.
//
// Nothing that a server sent in a body or that could be a secret (queries, headers, token answers) reaches an error.
//
// # Reading the code
//
// config.go checks the configuration; transport.go and address.go say who may be contacted; request.go asks for one
// thing with redirects and caps, authorize.go, challenge.go and token.go with credentials; client.go, referrers.go and
// image.go say what to ask for; manifest.go, imageconfig.go, link.go and json.go read it; errors.go words what went wrong.
package registry
