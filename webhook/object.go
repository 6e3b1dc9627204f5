package webhook

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// An object is the part of a Kubernetes object that a decision depends on: a Pod, or a workload's pod template.
type object struct {
	kind     objectKind
	meta     metadata // of the object
	template metadata // of the pod template; the same as meta for a Pod
	spec     podSpec
}

// objectKind says where a kind of object keeps its pod.
type objectKind struct {
	template []string // names from the object to the pod template; empty for a Pod
	isPod    bool
}

// podKindOf knows the kinds that have a pod template. The version does not matter: the template has stood at the same
// place in every version of each.
func podKindOf(group, kind string) (objectKind, bool) {
	switch group + "/" + kind {
	case "/Pod":
		return objectKind{isPod: true}, true
	case "apps/Deployment", "apps/StatefulSet", "apps/DaemonSet", "apps/ReplicaSet", "/ReplicationController", "batch/Job":
		return objectKind{template: []string{"spec", "template"}}, true
	case "batch/CronJob":
		return objectKind{template: []string{"spec", "jobTemplate", "spec", "template"}}, true
	case "/PodTemplate":
		return objectKind{template: []string{"template"}}, true
	}
	return objectKind{}, false
}

// pointer is the JSON pointer of the pod spec.
func (k objectKind) pointer() string {
	p := ""
	for _, name := range k.template {
		p += "/" + name
	}
	return p + "/spec"
}

type metadata struct {
	name, generateName string
	labels             map[string]string
	annotations        map[string]string
	hasAnnotations     bool // annotations is an object, even if an empty one
}

type podSpec struct {
	present        bool
	initContainers []container
	containers     []container
	ephemeral      []container
	volumes        []imageVolume
	security       securityContext
	os             string

	pullSecrets                        []string // names
	serviceAccountName, serviceAccount string   // the second is the older name of the first
}

type container struct {
	name          string
	image         string
	command, args []string
	env           []envVar
	envFrom       []string // prefixes of variables that Secrets and ConfigMaps set as a whole
	security      securityContext
	restartPolicy string
}

type envVar struct {
	name     string
	quoted   jsontext.Value // the value, as a part of the document: nearly none is looked at, and some are secrets
	indirect bool           // valueFrom: the value is not in the pod
}

// value is "" for none.
func (e envVar) value() string {
	if e.quoted == nil {
		return ""
	}
	text, _ := jsontext.AppendUnquote(nil, e.quoted) // the decoder has read it already
	return string(text)
}

type securityContext struct {
	present      bool
	runAsUser    *int64
	runAsNonRoot *bool
	windowsUser  string
	privileged   bool
}

// imageVolume is an entry of volumes; only those with an image have a reference.
type imageVolume struct {
	name, reference string
	isImage         bool
}

var (
	objectMembers   = members("metadata", "spec", "template", "jobTemplate")
	metadataMembers = members("name", "generateName", "labels", "annotations")
	specMembers     = members("initContainers", "containers", "ephemeralContainers", "volumes", "securityContext", "os",
		"imagePullSecrets", "serviceAccountName", "serviceAccount")
	containerMembers = members("name", "image", "command", "args", "env", "envFrom", "securityContext", "restartPolicy")
	envMembers       = members("name", "value", "valueFrom")
	securityMembers  = members("runAsUser", "runAsNonRoot", "windowsOptions", "privileged")
	volumeMembers    = members("name", "image")
)

var errTooMany = fmt.Errorf("names more than %d images", maxImages)

// readObject decodes an object of a kind that has a pod, with the decoder of its request if that has one. The error is a
// *MalformedError.
func readObject(kind objectKind, document []byte, d *decoder) (*object, error) {
	o := &object{kind: kind}
	d = d.readAgain(document)
	if d.PeekKind() != '{' {
		return nil, &MalformedError{Reason: "the object is missing"}
	}
	if err := o.read(d, kind.template); err != nil {
		return nil, d.malformed(err)
	}
	if kind.isPod {
		o.template = o.meta
	}
	return o, nil
}

// read reads the object that holds the rest of the path to the pod template, or the template itself.
func (o *object) read(d *decoder, path []string) error {
	return d.object(objectMembers, func(member string) error {
		switch {
		case len(path) > 0 && member == path[0]:
			return o.read(d, path[1:])
		case len(path) == 0 && member == "spec":
			o.spec.present = d.PeekKind() == '{'
			return o.spec.read(d)
		case member == "metadata" && len(path) == len(o.kind.template):
			return o.meta.read(d)
		case member == "metadata" && len(path) == 0:
			return o.template.read(d)
		}
		return d.SkipValue()
	})
}

func (m *metadata) read(d *decoder) error {
	return d.object(metadataMembers, func(member string) (err error) {
		switch member {
		case "name":
			m.name, err = d.string()
		case "generateName":
			m.generateName, err = d.string()
		case "labels":
			m.labels, err = d.labels()
		case "annotations":
			m.hasAnnotations = d.PeekKind() == '{'
			m.annotations, err = d.labels()
		default:
			err = d.SkipValue()
		}
		return err
	})
}

func (s *podSpec) read(d *decoder) error {
	return d.object(specMembers, func(member string) (err error) {
		switch member {
		case "initContainers":
			s.initContainers, err = readContainers(d)
		case "containers":
			s.containers, err = readContainers(d)
		case "ephemeralContainers":
			s.ephemeral, err = readContainers(d)
		case "volumes":
			s.volumes, err = readVolumes(d)
		case "securityContext":
			err = s.security.read(d)
		case "os":
			s.os, err = d.member("name")
		case "imagePullSecrets":
			err = d.array(func(int) error {
				name, err := d.member("name")
				s.pullSecrets = append(s.pullSecrets, name)
				return err
			})
		case "serviceAccountName":
			s.serviceAccountName, err = d.string()
		case "serviceAccount":
			s.serviceAccount, err = d.string()
		default:
			err = d.SkipValue()
		}
		return err
	})
}

func readContainers(d *decoder) ([]container, error) {
	var list []container
	err := d.array(func(i int) error {
		if i >= maxImages {
			return errTooMany // a hundred thousand would take a second to read, before selection refuses them
		}
		var c container
		err := c.read(d)
		list = append(list, c)
		return err
	})
	return list, err
}

func (c *container) read(d *decoder) error {
	return d.object(containerMembers, func(member string) (err error) {
		switch member {
		case "name":
			c.name, err = d.string()
		case "image":
			c.image, err = d.string()
		case "command":
			c.command, err = d.strings()
		case "args":
			c.args, err = d.strings()
		case "env":
			err = d.array(func(int) error {
				var e envVar
				err := e.read(d)
				c.env = append(c.env, e)
				return err
			})
		case "envFrom":
			err = d.array(func(int) error {
				prefix, err := d.member("prefix")
				c.envFrom = append(c.envFrom, prefix)
				return err
			})
		case "securityContext":
			err = c.security.read(d)
		case "restartPolicy":
			c.restartPolicy, err = d.string()
		default:
			err = d.SkipValue()
		}
		return err
	})
}

func (e *envVar) read(d *decoder) error {
	return d.object(envMembers, func(member string) (err error) {
		switch member {
		case "name":
			e.name, err = d.string()
		case "value":
			e.quoted, err = d.rawString()
		case "valueFrom":
			e.indirect = d.PeekKind() != 'n'
			err = d.SkipValue()
		default:
			err = d.SkipValue()
		}
		return err
	})
}

func (s *securityContext) read(d *decoder) error {
	s.present = d.PeekKind() == '{'
	return d.object(securityMembers, func(member string) (err error) {
		switch member {
		case "runAsUser":
			s.runAsUser, err = d.int()
		case "runAsNonRoot":
			s.runAsNonRoot, err = d.boolPointer()
		case "windowsOptions":
			s.windowsUser, err = d.member("runAsUserName")
		case "privileged":
			s.privileged, err = d.bool()
		default:
			err = d.SkipValue()
		}
		return err
	})
}

func readVolumes(d *decoder) ([]imageVolume, error) {
	var list []imageVolume
	err := d.array(func(int) error {
		var v imageVolume
		err := d.object(volumeMembers, func(member string) (err error) {
			switch member {
			case "name":
				v.name, err = d.string()
			case "image":
				v.isImage = d.PeekKind() == '{'
				v.reference, err = d.member("reference")
			default:
				err = d.SkipValue()
			}
			return err
		})
		list = append(list, v)
		return err
	})
	return list, err
}
