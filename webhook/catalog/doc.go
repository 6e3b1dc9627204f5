// Package catalog says what the configuration knows of an image: which registry entry covers it, what its tag means and
// which tag rule applies, whether it is a golden image, who must have signed it, what is exempted, and what to use
// instead of it. All of it is pure functions of a reference, a namespace, a role and the clock; nothing is fetched.
//
// # Tag classes
//
// A tag is a name that the registry may move to another image at any time. What people mean by it can be read off its
// spelling, and that is what a class says:
//
//	digest    no tag, but a digest                    repo@sha256:…
//	exact     a full version                          v1.3.1  4.133.0-noble  9.5-1733126338  rm-2023.2.5
//	dated     a day, or a month                       20260319  ubuntu-20240812  2023-03
//	sha       a commit                                ubi8-38da5c2  commit-b380926…
//	minor     major and minor version                 1.3  22.04  1.22-bullseye
//	major     major version                           v1  13  3-ubuntu24.04
//	distro    a distribution or its release name      ubuntu  bookworm  ubuntu24.04
//	branch    a branch, a pull request, a CI build    main  release-test  pr-12
//	rolling   whatever is newest                      latest  nightly  stable
//	untagged  neither tag nor digest                  repo
//	named     anything else                           jdk-11  dind  r2023a
//
// The first part of a tag that means something decides, but a commit or a day behind a weaker part is stronger: what
// was built from one commit is not built again under the same name. Only digest is immutable; exact, dated and sha are
// so by custom. Where a repository has another custom, a rule for that repository says so (tags.repositories).
package catalog
