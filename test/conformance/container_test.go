package conformance

import (
	"slices"
	"strings"
	"testing"

	"kaniko-build/test/conformance/corpus"
	"kaniko-build/test/rig"
)

// These are no accounts but Docker's default container, with root inside: as it is, and
// where it may make user namespaces, but has no file system for an overlay's upper.
const (
	inPlace rig.Kind = "inplace"
	walk    rig.Kind = "walk"
)

// Places in that container that no case looks at.
const (
	boxBinary = "/kaniko/kaniko-build"
	boxState  = "/kaniko/state"
	boxShared = "/kaniko/shared" // the directory of the machine that both sides see
)

// TestConformanceInPlace runs the cases one after the other in one container,
// whose root each of them uses and has to leave clean for the next.
func TestConformanceInPlace(t *testing.T) {
	inContainer(t, inPlace, rig.StartDocker(t), "inplace        used", nil)
}

// TestConformanceWalk runs those of them that are about what a RUN sees and changes, where
// steps are isolated, in a folder each node has for its root.
func TestConformanceWalk(t *testing.T) {
	inContainer(t, walk, rig.StartOpenDocker(t), "userns         used  with a walk", []string{"fs", "run", "from", "workdir", "user"})
}

func inContainer(t *testing.T, kind rig.Kind, docker *rig.Docker, doctor string, topics []string) {
	t.Helper()
	all, err := corpus.LoadAll("cases")
	if err != nil {
		t.Fatal(err)
	}
	s := newSuite(t)
	s.www.Smart() // there is no git in the container
	r := s.container(t, kind, docker, loadExceptions(t, all)[kind])
	if o := r.run(t, rig.Call{}, boxBinary, "doctor"); !strings.Contains(o.Stdout, doctor) {
		t.Fatalf("the container gives another rung than %q: %s", doctor, o.All())
	}
	before := r.ownFiles(t)
	for _, c := range all {
		if topic, _, _ := strings.Cut(c.Name, "-"); topics != nil && !slices.Contains(topics, topic) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) { r.try(t, c) })
	}
	if after := r.ownFiles(t); after != before {
		t.Errorf("the container's own files were\n%s\nand are\n%s", before, after)
	}
}

// container is a rung in a container that has busybox as its own files, and the
// store in its own root.
func (s *suite) container(t *testing.T, kind rig.Kind, docker *rig.Docker, exceptions map[string]string) *rung {
	t.Helper()
	shared := rig.Space(t, nil)
	image := s.registry.Addr + "/library/busybox:latest"
	docker.Pull(t, image)
	box := docker.Start(t, rig.Container{
		Image: image, Entrypoint: "/bin/sleep", Args: []string{"1000000"},
		Env: []string{"PATH=/bin", "KANIKO_BUILD_ISOLATION="},
		Mounts: []rig.Mount{
			{Source: shared, Target: boxShared}, {Source: s.binary, Target: boxBinary, ReadOnly: true},
		},
	})
	s.binary = boxBinary
	r := s.newRung(t, kind, exceptions)
	r.account, r.state, r.box, r.shared = &rig.Account{Name: "root"}, boxState, box, shared
	return r
}

// ownFiles lists what the container has of its own, without the store and
// without times and sizes of directories.
func (r *rung) ownFiles(t *testing.T) string {
	t.Helper()
	const list = `find / -xdev -path /kaniko -prune -o -type d -exec stat -c '%a %u:%g %n' {} + -o -exec stat -c '%a %u:%g %s %Y %N' {} + | sort -k 3`
	o := r.box.Exec(t, rig.Call{}, "/bin/sh", "-c", list)
	if o.Code != 0 {
		t.Fatalf("list files of the container: %s", o.All())
	}
	return o.Stdout
}

func (r *rung) runInBox(t *testing.T, c rig.Call, argv ...string) rig.Output {
	t.Helper()
	there := strings.NewReplacer(r.shared, boxShared)
	c.Dir = there.Replace(c.Dir)
	for _, list := range [][]string{argv, c.Env} {
		for i := range list {
			list[i] = there.Replace(list[i])
		}
	}
	return r.box.Exec(t, c, argv...)
}
