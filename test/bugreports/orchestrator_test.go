package bugreports

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// metadata is what the tests read of a --metadata-file.
type metadata map[string]struct {
	Status string `json:"status"`
	Digest string `json:"containerimage.digest"`
}

// apply runs `apply` on the manifest in the context; %M and %R in it stand for
// the registry with the bases and the one to push to.
func (l *lab) apply(manifest string, push *rig.Registry, args ...string) (rig.Output, metadata) {
	l.Helper()
	to := "reg.invalid"
	if push != nil {
		to = push.Addr
	}
	l.write(map[string]string{"kaniko-build.yaml": strings.NewReplacer("%M", l.mirror.Addr, "%R", to).Replace(manifest)})
	l.n++
	file := filepath.Join(l.out, fmt.Sprintf("%d.json", l.n))
	argv := append([]string{l.binary, "apply", "-f", l.path("kaniko-build.yaml"), "--progress", "plain", "--metadata-file", file}, args...)
	o := l.call(rig.Call{Dir: l.dir, Umask: l.umask, Env: []string{"KANIKO_BUILD_STATE=" + l.state}, Timeout: 4 * time.Minute}, argv...)
	var m metadata
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil && o.Code == 0 {
		l.Errorf("metadata file: %v", err)
	}
	return o, m
}

// ok is apply for what has to build.
func (l *lab) ok(manifest string, push *rig.Registry, args ...string) metadata {
	l.Helper()
	o, m := l.apply(manifest, push, args...)
	if o.Code != 0 {
		l.Fatalf("apply %v: exit code %d\n%s", args, o.Code, o.Tail(40))
	}
	return m
}

// fingerprint is a hash over everything below dir: names, modes, times, contents.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, p, st.Mode(), st.ModTime().UnixNano(), st.Size())
		if e.Type().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			h.Write(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Images do not see each other's files, in any order and after a failure, and
// the context is read only.
func (r reports) BR33SecondImageInheritsTheFirst(t *testing.T) {
	r.under(t, func(l *lab) {
		reg := rig.StartRegistry(l.T)
		l.write(map[string]string{
			"C/f":              "f\n",
			"C/one.Dockerfile": "FROM busybox\nVOLUME /v\nRUN mkdir -p /v && touch /leak /v/leak\n",
			"C/two.Dockerfile": "FROM busybox\nCOPY f /v\nRUN test ! -e /leak\n",
			"C/bad.Dockerfile": "FROM busybox\nCOPY f /g\nRUN touch /leak && false\n",
		})
		const head = "version: 1\nregistries: {docker.io: {mirrors: [\"%M\"]}}\ntargets:\n"
		const one = "  one: {context: C, dockerfile: one.Dockerfile, image: %R/one}\n"
		const two = "  two: {context: C, dockerfile: two.Dockerfile, image: %R/two}\n"
		const bad = "  bad: {context: C, dockerfile: bad.Dockerfile, image: %R/bad}\n"
		const cached = "version: 1\nregistries: {docker.io: {mirrors: [\"%M\"]}}\ndefaults: {cache: {repo: %R/cache}}\ntargets:\n"
		before := fingerprint(l.T, l.path("C"))
		for i, c := range []struct {
			manifest string
			args     []string
			fails    bool
		}{
			{head + one + two, []string{"-j", "1"}, false},
			{head + two + one, []string{"-j", "1"}, false},
			{head + one + two, []string{"-j", "4"}, false},
			{head + bad + two + one, []string{"-j", "1", "--keep-going"}, true},
			{head + one + two, []string{"-j", "2"}, false}, // after the failure
			{cached + bad + two + one, []string{"-j", "2", "--keep-going"}, true},
			{cached + one + two, []string{"-j", "1"}, false}, // from the cache, in the other order
		} {
			l.state = filepath.Join(l.out, fmt.Sprintf("state-%d", i))
			o, _ := l.apply(c.manifest, reg, append(c.args, "--push")...)
			if (o.Code != 0) != c.fails {
				l.Errorf("apply %d: exit code %d\n%s", i, o.Code, o.Tail(20))
			}
			if !c.fails {
				d := describe(l.T, reg.Addr+"/two")
				l.text(d, "/v", "f\n")
				l.gone(d, "/leak")
			}
			if after := fingerprint(l.T, l.path("C")); after != before {
				l.Errorf("apply %d changed the context", i)
			}
		}
	})
}

// An image that a sibling builds is never pulled; one target alone builds what
// it stands on; a cycle is an error that prints the path.
func (r reports) BR34TagBuiltByASiblingIsPulled(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{
			"base/Dockerfile": "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /m\n",
			"app/Dockerfile":  "FROM reg.invalid/base:1\nCOPY --from=reg.invalid/base:1 /m /copy\nRUN cmp /m /copy\n",
		})
		const manifest = `version: 1
registries: {docker.io: {mirrors: ["%M"]}}
targets:
  app: {context: app, image: reg.invalid/app, tags: ["1"]}
  base: {context: base, image: reg.invalid/base, tags: ["1"]}
`
		all := l.ok(manifest, nil)
		if len(all) != 2 {
			l.Errorf("metadata of %d targets, want app and base: %v", len(all), all)
		}
		l.state = filepath.Join(l.out, "another-state")
		alone := l.ok(manifest, nil, "app")
		if alone["base"].Digest == "" && alone["app"].Digest == "" {
			l.Errorf("`apply app` built neither: %v", alone)
		}

		l.write(map[string]string{"base/Dockerfile": "FROM reg.invalid/app:1\n"})
		o, _ := l.apply(manifest, nil)
		if o.Code == 0 {
			l.Error("a cycle builds")
		}
		for _, want := range []string{"circle", "app/Dockerfile:1", "base/Dockerfile:1"} {
			if !strings.Contains(o.All(), want) {
				l.Errorf("the error about a circle does not hold %q:\n%s", want, o.Tail(10))
			}
		}
	})
}

// A failure publishes no tag, and with --keep-going it stops only what stands
// on it.
func (r reports) BR36HalfAReleaseGetsPushed(t *testing.T) {
	r.under(t, func(l *lab) {
		reg := rig.StartRegistry(l.T)
		l.write(map[string]string{
			"ok/Dockerfile":   "FROM busybox\nRUN echo ok > /ok\n",
			"bad/Dockerfile":  "FROM busybox\nRUN sleep 1; false\n",
			"kid/Dockerfile":  "FROM " + reg.Addr + "/bad\nRUN true\n",
			"late/Dockerfile": "FROM busybox\nRUN sleep 2; echo late > /late\n",
		})
		const manifest = `version: 1
registries: {docker.io: {mirrors: ["%M"]}}
targets:
  bad: {context: bad, image: %R/bad}
  kid: {context: kid, image: %R/kid}
  ok: {context: ok, image: %R/ok}
  late: {context: late, image: %R/late}
`
		for _, args := range [][]string{{"--push"}, {"--push", "--keep-going"}} {
			o, m := l.apply(manifest, reg, args...)
			if o.Code == 0 {
				l.Errorf("apply %v: exit code 0", args)
			}
			if tagged := reg.Requests(l.T, `"PUT /v2/`, "/manifests/latest"); len(tagged) > 0 {
				l.Errorf("apply %v moved a tag: %s", args, tagged[0])
			}
			want := map[string][]string{"ok": {"built", "cached"}, "bad": {"failed"}, "kid": {"skipped"}}
			if len(args) == 2 {
				want["late"] = []string{"built", "cached"}
			}
			for name, states := range want {
				got := m[name].Status
				if !slices.ContainsFunc(states, func(s string) bool { return strings.HasPrefix(got, s) }) {
					l.Errorf("apply %v: metadata says %s is %q, want one of %v", args, name, got, states)
				}
			}
		}
		// Without what fails everything is published.
		l.ok(manifest, reg, "--push", "ok", "late")
		l.text(describe(l.T, reg.Addr+"/late"), "/late", "late\n")
	})
}

// No more steps run at once than -j says, and twins are built once.
func (r reports) BR37ParallelLimitIgnored(t *testing.T) {
	r.under(t, func(l *lab) {
		reg := rig.StartRegistry(l.T)
		l.write(map[string]string{
			"c/Dockerfile": "FROM busybox\nARG N\nRUN cut -d' ' -f1 /proc/uptime > /from; sleep 0.4; cut -d' ' -f1 /proc/uptime > /to; echo $N\n",
			"t/Dockerfile": "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id; sleep 0.4\n",
		})
		var m strings.Builder
		m.WriteString("version: 1\nregistries: {docker.io: {mirrors: [\"%M\"]}}\ntargets:\n")
		const n, most = 30, 2
		for i := range n {
			fmt.Fprintf(&m, "  n%d: {context: c, args: {N: \"%d\"}, image: %%R/n%d}\n", i, i, i)
		}
		m.WriteString("  twin-a: {context: t, image: %R/twin, tags: [a]}\n  twin-b: {context: t, image: %R/twin, tags: [b]}\n")
		l.ok(m.String(), reg, "--push", "-j", strconv.Itoa(most))
		type moment struct {
			at    float64
			delta int
		}
		var all []moment
		for i := range n {
			d := describe(l.T, fmt.Sprintf("%s/n%d", reg.Addr, i))
			for name, delta := range map[string]int{"/from": 1, "/to": -1} {
				e, _ := d.Find(name)
				at, err := strconv.ParseFloat(strings.TrimSpace(e.Text), 64)
				if err != nil {
					l.Fatalf("n%d: %s: %v", i, name, err)
				}
				all = append(all, moment{at, delta})
			}
		}
		slices.SortFunc(all, func(a, b moment) int {
			if a.at != b.at {
				return map[bool]int{true: -1, false: 1}[a.at < b.at]
			}
			return a.delta - b.delta // an end first: the clock has hundredths
		})
		running, peak := 0, 0
		for _, e := range all {
			running += e.delta
			peak = max(peak, running)
		}
		if peak > most {
			l.Errorf("%d steps ran at once with -j %d", peak, most)
		}
		a, b := describe(l.T, reg.Addr+"/twin:a"), describe(l.T, reg.Addr+"/twin:b")
		ea, _ := a.Find("/id")
		eb, _ := b.Find("/id")
		if ea.Text == "" || ea.Text != eb.Text {
			l.Errorf("twins were built twice: %q and %q", ea.Text, eb.Text)
		}
	})
}
