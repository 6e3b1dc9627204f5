package webhook

import (
	"cmp"
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
	found := buildersOf(c)
	role := roleOf(list, i, c, agent)
	outer := role
	if len(found) > 0 && role != RoleEphemeral {
		outer = RoleBuilder
	}
	source := imageSource{security: c.security, pod: s.object.spec.security, windows: s.object.spec.os == "windows"}
	if c.image != "" || s.object.kind.isPod {
		s.add(&Image{Where: where, Pointer: pointer + "/image", Role: outer, Text: c.image, source: source})
	}
	inner := imageSource{inner: true}
	var args []argument
	if len(found) > 0 {
		args = c.arguments(pointer)
	}
	for _, b := range found {
		inner.innerUser = cmp.Or(inner.innerUser, b.user(c, args))
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
			image.Error = unseen
		}
		s.add(image)
	}
	for _, b := range found {
		s.arguments(args, b, Image{Where: where, Role: role, source: inner})
		for _, name := range b.variables {
			if slices.Contains(s.env.Names, name) && c.mayHide(name) && !s.env.AllowUnresolved {
				s.add(&Image{Where: where + ".env[" + name + "]", Pointer: pointer + "/envFrom", Role: role, Error: unseen, source: inner})
			}
		}
	}
}

// unseen is why the image of a variable is refused.
const unseen = "the image comes from a Secret or ConfigMap and cannot be seen here; write it as a plain value"

// mayHide says that a variable may come from a Secret or ConfigMap that is taken as a whole. What env says counts before.
func (c *container) mayHide(name string) bool {
	return slices.ContainsFunc(c.envFrom, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) &&
		!slices.ContainsFunc(c.env, func(e envVar) bool { return e.name == name })
}

// user is as whom the builder is told to start its image, "" when it is not told. The flag counts before the variable, and
// the last before others.
func (b builder) user(c *container, args []argument) string {
	const hidden = "(from a Secret or ConfigMap)"
	user := ""
	if slices.ContainsFunc(b.userVariables, c.mayHide) {
		user = hidden
	}
	for _, e := range c.env {
		if slices.Contains(b.userVariables, e.name) {
			user = e.value()
			if e.indirect {
				user = hidden
			}
		}
	}
	for i := range args {
		if name, _, value, ok := flagAt(args, i); ok && slices.Contains(b.userFlags, name) {
			user = value.text
		}
	}
	return user
}

// An argument of a container, and where it stands in the object.
type argument struct{ text, pointer string }

// arguments are those of the command and of args, which follow each other when the container runs.
func (c *container) arguments(pointer string) []argument {
	all := make([]argument, 0, len(c.command)+len(c.args))
	for i, text := range c.command {
		all = append(all, argument{text, pointer + "/command/" + strconv.Itoa(i)})
	}
	for i, text := range c.args {
		all = append(all, argument{text, pointer + "/args/" + strconv.Itoa(i)})
	}
	return all
}

// flagAt gives the flag that begins at a place, and where its value stands: "--name=value", whose value has prefix "--name=" in
// front of it there, or "--name" and the argument behind it. It is not ok without a value.
func flagAt(args []argument, i int) (name, prefix string, value argument, ok bool) {
	value = args[i]
	name, text, joined := strings.Cut(value.text, "=")
	switch {
	case joined:
		value.text = text
		return name, name + "=", value, true
	case i+1 < len(args):
		return name, "", args[i+1], true
	}
	return name, "", value, false
}

// A builder is a program that starts or builds another image inside its container.
type builder struct {
	name      string   // of the program, and part of the names of its images
	envPrefix string   // of its env variables
	variables []string // that name an image
	flags     []string // that take an image

	userVariables, userFlags []string // that say as whom the image is started
}

// builders: the flags and variables are those of github.com/coder/envbox (cli/docker.go) and
// github.com/coder/envbuilder (options/options.go).
var builders = [...]builder{
	{
		name: "envbox", envPrefix: "CODER_INNER_", variables: []string{"CODER_INNER_IMAGE"}, flags: []string{"--image", "--inner-image"},
		userVariables: []string{"CODER_INNER_USERNAME"}, userFlags: []string{"--username"},
	},
	{
		name: "envbuilder", envPrefix: "ENVBUILDER_", variables: []string{"ENVBUILDER_FALLBACK_IMAGE", "FALLBACK_IMAGE"},
		flags: []string{"--fallback-image"},
	},
}

// mayHide says that an argument, which is no flag as it stands, may be one when it is run: Kubernetes puts variables in the
// place of "$(NAME)", and scripts are not read here.
func (b builder) mayHide(arg string) bool {
	before, _, expanded := strings.Cut(arg, "$(")
	for _, flag := range slices.Concat(b.flags, b.userFlags) {
		if expanded && strings.HasPrefix(flag+"=", before) || mentions(arg, flag, "= \t\n\"'\\$") {
			return true
		}
	}
	return slices.ContainsFunc(slices.Concat(b.variables, b.userVariables), func(name string) bool { return mentions(arg, name, "=") })
}

// mentions says that a word stands in a text in front of one of the characters.
func mentions(text, word, next string) bool {
	for {
		_, after, found := strings.Cut(text, word)
		if !found {
			return false
		}
		if after != "" && strings.Contains(next, after[:1]) {
			return true
		}
		text = after
	}
}

// buildersOf recognises builders by the image, the command or the variables of a container. One that hides all three is not
// recognised, but its own image still has to be an approved one.
func buildersOf(c *container) (found []builder) {
	for _, b := range builders {
		named := strings.Contains(path.Base(c.image), b.name)
		called := len(c.command) > 0 && path.Base(c.command[0]) == b.name
		configured := slices.ContainsFunc(c.env, func(e envVar) bool { return strings.HasPrefix(e.name, b.envPrefix) }) ||
			slices.ContainsFunc(c.envFrom, func(prefix string) bool { return strings.HasPrefix(prefix, b.envPrefix) })
		if named || called || configured {
			found = append(found, b)
		}
	}
	return found
}

// arguments finds "--flag=REF" and "--flag REF", and refuses what may turn out to be one.
func (s *selection) arguments(args []argument, b builder, template Image) {
	for i, arg := range args {
		image := template
		flag, prefix, value, ok := flagAt(args, i)
		switch {
		case ok && slices.Contains(b.flags, flag):
			image.prefix, image.Text = prefix, value.text
		case !slices.Contains(b.flags, flag) && !slices.Contains(b.userFlags, flag) && !s.env.AllowUnresolved && b.mayHide(arg.text):
			flag, value = b.flags[0], arg
			image.Error = "an image or a user may be hidden in this argument; give each in one of its own, as in " + flag + "=REF"
		default:
			continue
		}
		image.Where, image.Pointer = template.Where+".arg["+flag+"]", value.pointer
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
