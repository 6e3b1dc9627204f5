package webhook

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxImages bounds the images of one object. Real workspaces have up to a dozen.
const maxImages = 256

// EnvImages says which env variables name images.
type EnvImages struct {
	Names           []string // names of env variables whose value is an image reference
	AllowUnresolved bool     // pass over a variable whose value is not in the pod
}

// selectImages finds every image that an object names, in the order of the pod. An empty image is passed over in a
// workload, where it means that somebody else will fill it in, but not in a Pod.
func selectImages(o *object, env EnvImages) ([]*Image, error) {
	s := &selection{object: o, env: env, base: o.kind.pointer()}
	lists := []struct {
		name       string
		containers []container
	}{
		{"initContainers", o.spec.initContainers},
		{"containers", o.spec.containers},
		{"ephemeralContainers", o.spec.ephemeral},
	}
	agent := slices.ContainsFunc(o.spec.containers, hasAgent)
	for _, list := range lists {
		for i := range list.containers {
			s.container(list.name, i, &list.containers[i], agent)
		}
	}
	for i, volume := range o.spec.volumes {
		if volume.isImage && volume.reference != "" {
			s.add(&Image{
				Where:   "volumes[" + nameOr(volume.name, i) + "]",
				Pointer: s.base + "/volumes/" + strconv.Itoa(i) + "/image/reference",
				Role:    RoleVolume, Text: volume.reference,
			})
		}
	}
	if len(s.images) > maxImages {
		return nil, &MalformedError{Pointer: s.base, Reason: fmt.Sprintf("names more than %d images", maxImages)}
	}
	for _, image := range s.images {
		if image.Error != "" {
			continue
		}
		ref, err := ParseReference(image.Text)
		if err != nil {
			image.Error = strings.TrimPrefix(err.Error(), ErrReference.Error()+": ")
		}
		image.Ref = ref
	}
	return s.images, nil
}

type selection struct {
	object *object
	env    EnvImages
	base   string // JSON pointer of the pod spec
	images []*Image
}

// add keeps Where unique: only an object that the API server will refuse can have two containers of one name.
func (s *selection) add(image *Image) {
	if len(s.images) > maxImages {
		return
	}
	where := image.Where
	for n := 2; slices.ContainsFunc(s.images, func(i *Image) bool { return i.Where == image.Where }); n++ {
		image.Where = where + "#" + strconv.Itoa(n)
	}
	s.images = append(s.images, image)
}

func (s *selection) container(list string, i int, c *container, agent bool) {
	where := list + "[" + nameOr(c.name, i) + "]"
	pointer := s.base + "/" + list + "/" + strconv.Itoa(i)
	builder, isBuilder := builderOf(c)
	role := roleOf(list, i, c, agent)
	outer := role
	if isBuilder && role != RoleEphemeral {
		outer = RoleBuilder
	}
	source := imageSource{security: c.security, pod: s.object.spec.security, windows: s.object.spec.os == "windows"}
	if c.image != "" || s.object.kind.isPod {
		s.add(&Image{Where: where, Pointer: pointer + "/image", Role: outer, Text: c.image, source: source})
	}
	inner := imageSource{inner: true}
	for _, e := range c.env {
		if e.name == "CODER_INNER_USERNAME" {
			inner.innerUser = e.value()
			if e.indirect {
				inner.innerUser = "(from a Secret or ConfigMap)"
			}
		}
	}
	for j, e := range c.env {
		if !slices.Contains(s.env.Names, e.name) || !e.indirect && e.value() == "" || e.indirect && s.env.AllowUnresolved {
			continue
		}
		image := &Image{
			Where: where + ".env[" + e.name + "]", Pointer: pointer + "/env/" + strconv.Itoa(j) + "/value",
			Role: role, Text: e.value(), source: inner,
		}
		if e.indirect {
			image.Error = "the image comes from a Secret or ConfigMap and cannot be seen here; write it as a plain value"
		}
		s.add(image)
	}
	if isBuilder {
		s.arguments(where, pointer+"/command", c.command, builder, Image{Role: role, source: inner})
		s.arguments(where, pointer+"/args", c.args, builder, Image{Role: role, source: inner})
	}
}

// A builder is a program that starts or builds another image inside its container.
type builder struct {
	name      string   // of the program, and part of the names of its images
	envPrefix string   // of its env variables
	flags     []string // that take an image
}

// builders: the flags and variables are those of github.com/coder/envbox (cli/docker.go) and
// github.com/coder/envbuilder (options/options.go).
var builders = [...]builder{
	{name: "envbox", envPrefix: "CODER_INNER_", flags: []string{"--image", "--inner-image"}},
	{name: "envbuilder", envPrefix: "ENVBUILDER_", flags: []string{"--fallback-image"}},
}

// builderOf recognises a builder by its image, its command or its variables. A builder that hides all three is not
// recognised, but its own image still has to be an approved one.
func builderOf(c *container) (builder, bool) {
	for _, b := range builders {
		named := strings.Contains(path.Base(c.image), b.name)
		called := len(c.command) > 0 && path.Base(c.command[0]) == b.name
		configured := slices.ContainsFunc(c.env, func(e envVar) bool { return strings.HasPrefix(e.name, b.envPrefix) })
		if named || called || configured {
			return b, true
		}
	}
	return builder{}, false
}

// arguments finds "--flag=REF" and "--flag REF".
func (s *selection) arguments(where, pointer string, args []string, b builder, template Image) {
	for i, arg := range args {
		flag, value, joined := strings.Cut(arg, "=")
		if !slices.Contains(b.flags, flag) {
			continue
		}
		image := template
		image.Where = where + ".arg[" + flag + "]"
		switch {
		case joined:
			image.prefix, image.Text = flag+"=", value
		case i+1 < len(args):
			i, image.Text = i+1, args[i+1]
		default:
			continue
		}
		image.Pointer = pointer + "/" + strconv.Itoa(i)
		s.add(&image)
	}
}

func roleOf(list string, i int, c *container, agent bool) Role {
	switch {
	case list == "ephemeralContainers":
		return RoleEphemeral
	case list == "initContainers" && c.restartPolicy == "Always":
		return RoleSidecar
	case list == "initContainers":
		return RoleInit
	case hasAgent(*c), i == 0 && !agent:
		return RoleWorkspace
	}
	return RoleSidecar
}

// hasAgent recognises the container in which a Coder agent runs.
func hasAgent(c container) bool {
	return slices.ContainsFunc(c.env, func(e envVar) bool { return e.name == "CODER_AGENT_TOKEN" })
}

func nameOr(name string, i int) string {
	if name == "" {
		return strconv.Itoa(i)
	}
	return name
}

// markChanged sets Changed on every image that old does not have in the same place with the same settings. Places are
// matched by name, not by position or by text: two containers that swap their images have both changed.
func markChanged(images, old []*Image) (changed int) {
	before := make(map[string]*Image, len(old))
	for _, image := range old {
		before[image.Where] = image
	}
	for _, image := range images {
		was := before[image.Where]
		image.Changed = was == nil || was.Text != image.Text || !was.source.equal(image.source)
		if was != nil {
			image.before = was.Ref
		}
		if image.Changed {
			changed++
		}
	}
	return changed
}

func (s imageSource) equal(t imageSource) bool {
	return s.security.equal(t.security) && s.pod.equal(t.pod) &&
		s.windows == t.windows && s.inner == t.inner && s.innerUser == t.innerUser
}

func (s securityContext) equal(t securityContext) bool {
	return equalPointers(s.runAsUser, t.runAsUser) && equalPointers(s.runAsNonRoot, t.runAsNonRoot) &&
		s.windowsUser == t.windowsUser && s.privileged == t.privileged
}

func equalPointers[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
