package watch

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/test/rig"
)

// TestRules copies files to where an image runs, by the program docker, which here runs
// its commands on this machine; leaves others alone; and builds the rest.
func TestRules(t *testing.T) {
	files := pair()
	s := prepare(t, files)
	running := filepath.Join(t.TempDir(), "app")
	s.write(map[string]string{
		"kaniko-build.yaml": `version: 1
targets:
  b:
    context: b
    watch:
      rules:
        - {paths: ["src/keep/**"], action: rebuild}
        - {paths: ["src/**"], action: sync, to: ` + running + `, via: "docker:web", exec: [touch, ` + running + `/reloaded]}
        - {paths: ["docs/**"], action: none}
  mark: {context: mark}
`,
		"b/Dockerfile": "FROM scratch\nCOPY . /app\n", "b/src/a.js": "1", "b/src/keep/k": "1", "b/docs/d": "1", "b/main": "1",
		"bin/docker": "#!/bin/sh\n[ \"$1 $2 $3\" = 'exec -i web' ] || exit 7\nshift 3\nexec \"$@\"\n",
	})
	s.sh("chmod +x bin/docker")
	t.Setenv("PATH", filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"))
	s.run()
	s.until("watch watching")
	s.write(map[string]string{"b/src/a.js": "2", "b/src/deep/er/b.js": "new"})
	s.until("watch synced")
	for name, want := range map[string]string{"a.js": "2", "deep/er/b.js": "new", "reloaded": ""} {
		if b, err := os.ReadFile(filepath.Join(running, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	s.sh("rm b/src/a.js")
	s.until("watch synced")
	if _, err := os.Lstat(filepath.Join(running, "a.js")); !os.IsNotExist(err) {
		t.Errorf("a deleted file stays: %v", err)
	}
	s.expect("files that are copied", "")
	s.write(map[string]string{"b/docs/d": "2"})
	s.expect("a file of no account", "")
	s.write(map[string]string{"b/src/keep/k": "2"})
	s.expect("a file whose rule says so", "b")
	s.write(map[string]string{"b/main": "2"})
	s.expect("a file without a rule", "b")
	s.write(map[string]string{"bin/docker": "#!/bin/sh\nexit 1\n", "b/src/c.js": "1"})
	s.expect("a file that cannot be copied", "b")
}

// TestRulesOfAProcess copies files into the process of --run, as each kind of user.
func TestRulesOfAProcess(t *testing.T) {
	for _, k := range rig.Kinds {
		t.Run(string(k), func(t *testing.T) { rulesOfAProcess(t, rig.NewAccount(t, k)) })
	}
}

func rulesOfAProcess(t *testing.T, a *rig.Account) {
	files := served(t)
	files["kaniko-build.yaml"] = `version: 1
targets:
  api:
    context: api
    watch:
      rules:
        - {paths: ["live/**"], action: sync, to: /live, exec: [busybox, kill, -HUP, "1"]}
        - {paths: ["bad/**"], action: sync, to: /live, exec: [nope]}
        - {paths: ["out/**"], action: sync, to: /hostile}
        - {paths: ["end/**"], action: sync, to: /live, exec: [busybox, sh, -c, "busybox kill -TERM 1; exec busybox sleep 1000"]}
`
	files["api/Dockerfile"] += "COPY hostile /\nCOPY live /live\nCOPY bad /bad\nCOPY out /out\nCOPY end /end\n"
	for _, dir := range []string{"live", "bad", "out", "end", "hostile"} {
		files["api/"+dir+"/f"] = "one"
	}
	s := prepare(t, files)
	outside := rig.Space(t, a)
	s.sh("ln -s " + outside + " api/hostile/hostile")
	s.give(a)
	s.run("--run", "api", "--", "trap 'echo live: $(busybox cat /live/*)' HUP; trap 'exit 9' TERM; echo ready; while :; do busybox sleep 1000 & wait $!; done")
	ready := func() {
		s.Helper()
		s.until("watch started")
		s.says("ready\n")
	}
	// synced waits until files were copied and the process has printed a line, in any order.
	synced := func(line string) {
		s.Helper()
		copied, said := false, false
		for !copied || !said {
			e := s.next()
			copied = copied || e.is() == "watch synced"
			said = said || e.is() == "log api" && strings.Contains(e.Data, line)
			if e.is() == "watch held" || e.is() == "watch started" {
				t.Fatalf("%s", e.Text)
			}
		}
	}
	ready()
	s.write(map[string]string{"api/live/f": "two", "api/live/more/f": "more"})
	synced("live: two\n")
	s.write(map[string]string{"api/live/g": "three"})
	synced("live: twothree\n")
	s.sh("rm api/live/f")
	synced("live: three\n")
	s.expect("files that are copied", "")
	// What goes wrong is told, and built.
	wrong := func(file, what string) {
		s.Helper()
		s.write(map[string]string{file: "two"})
		if e := s.until("watch held"); !strings.Contains(e.Text, what) {
			t.Errorf("%s: %s", file, e.Text)
		}
		ready()
	}
	wrong("api/bad/f", `exec: "nope": executable file not found in $PATH`)
	wrong("api/out/f", "/hostile")
	if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
		t.Errorf("a link of the image leads out: %v, %v", list, err)
	}
	wrong("api/end/f", "the process has ended")
	s.write(map[string]string{"api/live/g": "four"})
	synced("live: four\n")
	s.stop()
}

// What is copied while the image is built is in the process that is started with that image.
func TestRulesOfAProcessDuringABuild(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	files := served(t)
	files["kaniko-build.yaml"] = "version: 1\ntargets:\n  api: {context: api, watch: {rules: [{paths: [live], action: sync, to: /}]}}\n"
	_, port, _ := net.SplitHostPort(l.Addr().String())
	files["api/live"] = "one"
	files["api/Dockerfile"] += "COPY live /live\nRUN [\"/bin/busybox\", \"nc\", \"127.0.0.1\", \"" + port + "\"]\n"
	s := prepare(t, files)
	s.run("--run", "api", "--", "while :; do now=$(busybox cat /live); [ \"$now\" = \"$was\" ] || echo live: $now; was=$now; busybox sleep 0.05; done")
	building := func() net.Conn {
		s.Helper()
		c, err := l.Accept() // by the RUN, which waits for its end
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	building().Close()
	s.until("watch started")
	s.says("live: one\n")
	s.write(map[string]string{"api/text": "two"})
	c := building()
	s.write(map[string]string{"api/live": "two"})
	s.says("live: two\n")
	c.Close()
	s.until("watch started")
	s.says("live: two\n") // its image has one
	s.stop()
}

// A rule that syncs says where to, or the process of its target runs.
func TestRulesWithoutAPlace(t *testing.T) {
	for _, args := range [][]string{nil, {"--run", "mark"}} {
		files := served(t)
		files["kaniko-build.yaml"] = "version: 1\ntargets:\n  api: {context: api, watch: {rules: [{paths: [text], action: sync, to: /}]}}\n"
		s := prepare(t, files)
		s.run(args...)
		e := s.until("watch broken")
		for _, want := range []string{"kaniko-build.yaml:3:39: ", `target "api"`, "--run api, or write via: kubectl:WORKLOAD"} {
			if !strings.Contains(e.Text, want) {
				t.Errorf("%q lacks %q", e.Text, want)
			}
		}
		s.stop()
	}
}
