package registry

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestNextLink(t *testing.T) {
	tests := []struct {
		name   string
		header []string
		want   string // "" for none
		broken bool
	}{
		{name: "none"},
		{name: "empty", header: []string{"", " , ,"}},
		{name: "quoted", header: []string{`</a?b=c>; rel="next"`}, want: "/a?b=c"},
		{name: "a word", header: []string{`</a>;rel=next`}, want: "/a"},
		{name: "in capitals", header: []string{`</a>; REL=NEXT`}, want: "/a"},
		{name: "one of several relations", header: []string{`</a>; rel="start next"`}, want: "/a"},
		{name: "a relation with next in it", header: []string{`</a>; rel="nextish"`}},
		{name: "the first relation counts", header: []string{`</a>; rel="prev"; rel="next"`}},
		{name: "the second of a line", header: []string{`</a>; rel="prev",</b>; rel="next"`}, want: "/b"},
		{name: "the second line", header: []string{`</a>; rel="prev"`, `</b>; rel="next"`}, want: "/b"},
		{name: "the first of two", header: []string{`</a>; rel="next", </b>; rel="next"`}, want: "/a"},
		{name: "characters that separate", header: []string{`</a?b,c;d>; x="a,b;\"rel=next"; rel="next"`}, want: "/a?b,c;d"},
		{name: "a flag", header: []string{`</a>; crossorigin; rel=next`}, want: "/a"},
		{name: "stray semicolons", header: []string{`</a>;; ; rel=next;`}, want: "/a"},
		{name: "without a relation", header: []string{`</a>`}},
		{name: "no brackets", header: []string{`/a; rel="next"`}, broken: true},
		{name: "one bracket", header: []string{`/a>; rel="next"`}, broken: true},
		{name: "an open bracket", header: []string{`</a; rel="next"`}, broken: true},
		{name: "open quotes", header: []string{`</a>; rel="next`}, broken: true},
		{name: "no semicolon", header: []string{`</a> rel="next"`}, broken: true},
		{name: "no name", header: []string{`</a>; "next"`}},
		{name: "no equals sign", header: []string{`</a>; rel next`}, broken: true},
		{name: "more after the quotes", header: []string{`</a>; rel="prev"x`}, broken: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, found, err := nextLink(http.Header{"Link": test.header})
			if got != test.want || found != (test.want != "") || (err != nil) != test.broken {
				t.Errorf("got %q, %t, %v", got, found, err)
			}
		})
	}
}

// FuzzParseReferrers: what is taken apart can be put together again, and every reader sees the same entries in it.
func FuzzParseReferrers(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x","artifactType":"y"}, {"size":1e9}]}`), `</a>; rel="next"`)
	f.Add([]byte(`{"mediaType":"`+ociIndex+`","manifests":null}`), `<>;a="\"",<`)
	f.Fuzz(func(t *testing.T, body []byte, link string) {
		if target, found, err := nextLink(http.Header{"Link": {link}}); found && (err != nil || !strings.Contains(link, "<"+target+">")) {
			t.Errorf("got the link %q, %v", target, err)
		}
		entries, err := parseReferrers(body, ociIndex)
		if err != nil {
			return
		}
		joined := joinReferrers(entries)
		again, err := parseReferrers(joined, ociIndex)
		if err != nil || !slices.EqualFunc(entries, again, func(a, b jsontext.Value) bool { return string(a) == string(b) }) {
			t.Fatalf("got %s, %v", joined, err)
		}
		var theirs, ours struct {
			Manifests []struct{ MediaType, ArtifactType, Digest string }
		}
		if json.Unmarshal(body, &theirs) != nil {
			return // who uses the list does not read it
		}
		if err := json.Unmarshal(joined, &ours); err != nil || !slices.Equal(ours.Manifests, theirs.Manifests) {
			t.Errorf("others read %+v, we read %+v, %v", theirs, ours, err)
		}
	})
}
