package conformance

import (
	"strings"
	"testing"

	"kaniko-build/test/conformance/corpus"
	"kaniko-build/test/rig"
)

// inPlace is no account but Docker's default container, with root inside.
const inPlace rig.Kind = "inplace"

// Places in that container that no case looks at.
const (
	boxBinary = "/kaniko/kaniko-build"
	boxState  = "/kaniko/state"
	boxShared = "/kaniko/shared" // the directory of the machine that both sides see
)

// TestConformanceInPlace runs the cases one after the other in one container,
// whose root each of them uses and has to leave clean for the next.
func TestConformanceInPlace(t *testing.T) {
	rig.NeedRoot(t)
	all, err := corpus.LoadAll("cases")
	if err != nil {
		t.Fatal(err)
	}
	s := newSuite(t)
	s.www.Smart() // there is no git in the container
	r := s.container(t, loadExceptions(t, all)[inPlace])
	before := r.ownFiles(t)
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) { r.try(t, c) })
	}
	if after := r.ownFiles(t); after != before {
		t.Errorf("the container's own files were\n%s\nand are\n%s", before, after)
	}
}

// container is a rung in a container that has busybox as its own files, and the
// store in its own root.
func (s *suite) container(t *testing.T, exceptions map[string]string) *rung {
	t.Helper()
	shared := rig.Space(t, nil)
	docker := rig.StartDocker(t)
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
	r := s.newRung(t, inPlace, exceptions)
	r.account, r.state, r.box, r.shared = &rig.Account{Name: "root"}, boxState, box, shared
	if o := r.run(t, rig.Call{}, boxBinary, "doctor"); !strings.Contains(o.Stdout, "inplace        used") {
		t.Fatalf("another rung is better in a default container: %s", o.All())
	}
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
