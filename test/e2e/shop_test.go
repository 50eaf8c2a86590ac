package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// shop is a copy of the example, seen from one account.
type shop struct {
	account *rig.Account
	binary  string
	dir     string
	state   string
	bases   *rig.Registry
	target  *rig.Registry
}

func newShop(t *testing.T, kind rig.Kind, bases *rig.Registry) *shop {
	t.Helper()
	s := &shop{account: rig.NewAccount(t, kind), binary: rig.Binary(t), bases: bases, target: rig.StartRegistry(t)}
	s.dir = filepath.Join(rig.Space(t, nil), "shop")
	if err := os.CopyFS(s.dir, os.DirFS(filepath.Join(rig.Root(t), "examples", "shop"))); err != nil {
		t.Fatal(err)
	}
	rig.Give(t, s.dir, s.account)
	s.state = filepath.Join(rig.Space(t, s.account), "state")
	return s
}

func (s *shop) call(timeout time.Duration) rig.Call {
	return rig.Call{Dir: s.dir, Timeout: timeout, Env: []string{
		"KANIKO_BUILD_STATE=" + s.state, "SHOP_MIRROR=" + s.bases.Addr, "SHOP_REGISTRY=" + s.target.Addr + "/shop", "SHOP_TAG=v1",
	}}
}

func (s *shop) ref(name string) string { return s.target.Addr + "/shop/" + name + ":v1" }

var images = []string{"base", "api", "cart", "web", "report"}

// TestShop is the main job from end to end.
func TestShop(t *testing.T) {
	rig.NeedRoot(t)
	bases := rig.StartMirror(t)
	for _, kind := range rig.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			s := newShop(t, kind, bases)
			o := s.account.Must(t, s.call(10*time.Minute), s.binary, "apply", "--push", "--progress", "plain", "--metadata-file", filepath.Join(s.account.Home, "meta.json"))
			rig.Report(t, "shop, %s: built and pushed in %.1f s", kind, o.Took.Seconds())
			for _, n := range images {
				accepted(t, s.ref(n))
				if !regexp.MustCompile(`(?m)\b` + n + `\b.*sha256:[0-9a-f]{12}`).MatchString(o.Stdout) {
					t.Errorf("stdout does not name %s with its digest:\n%s", n, o.Stdout)
				}
			}

			port := heldPort(t)
			pull(t, s.ref("api")).start(t, []string{"PORT=" + port})
			answers(t, port, "/", "tea 3.49 EUR")
			answers(t, port, "/health", "ok")
			port = heldPort(t)
			pull(t, s.ref("cart")).start(t, []string{"PORT=" + port})
			answers(t, port, "/?n=2", "2 teas: 6.98 EUR")
			port = heldPort(t)
			pull(t, s.ref("web")).start(t, nil, "entrypoint", "httpd", "-f", "-p", "127.0.0.1:"+port, "-h", "/srv/www")
			answers(t, port, "/", "<h1>Tea</h1>")
			answers(t, port, "/shop.css", "font-family")
			if out := pull(t, s.ref("report")).start(t, nil)(); out != "3 orders in EUR\n" {
				t.Errorf("the job printed %q", out)
			}

			again := s.account.Must(t, s.call(2*time.Minute), s.binary, "apply", "--push", "--progress", "plain")
			rig.Report(t, "shop, %s: again with nothing changed in %.2f s", kind, again.Took.Seconds())
			s.startsNothing(t)
			s.changesOne(t)
			if left := rig.Leftovers(s.state, s.binary); len(left) > 0 {
				t.Errorf("left behind: %s", strings.Join(left, "\n  "))
			}
		})
	}
}

// startsNothing counts what an apply with nothing to do starts: no process and
// no namespace.
func (s *shop) startsNothing(t *testing.T) {
	t.Helper()
	strace := rig.Need(t, "strace", "strace")
	file := filepath.Join(rig.Space(t, s.account), "trace")
	s.account.Must(t, s.call(2*time.Minute), strace, "-f", "-qq", "-e", "trace=execve,clone,clone3,fork,vfork,unshare,setns", "-o", file,
		s.binary, "apply", "--push", "--progress", "plain")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	// strace prints system calls that it does not know whatever it was asked for.
	starts := regexp.MustCompile(`^\d+ +(execve|clone|clone3|fork|vfork|unshare|setns)\(`)
	for _, l := range strings.Split(string(b), "\n") {
		if starts.MatchString(l) && !strings.Contains(l, "CLONE_THREAD") && !strings.Contains(l, "execve(\""+s.binary+"\"") {
			calls = append(calls, l)
		}
	}
	if len(calls) > 0 {
		t.Errorf("an apply with nothing to do starts processes or namespaces:\n  %s", strings.Join(calls, "\n  "))
	}
}

// changesOne touches one service and checks that only its image is new, and
// that only what is missing is pushed.
func (s *shop) changesOne(t *testing.T) {
	t.Helper()
	before := map[string]string{}
	for _, n := range images {
		before[n] = digest(t, s.ref(n))
	}
	file := filepath.Join(s.dir, "api", "main.go")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), "tea %s", "green tea %s", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	uploads := len(s.target.Requests(t, `"PUT /v2/`, "/blobs/uploads/"))
	s.account.Must(t, s.call(5*time.Minute), s.binary, "apply", "--push", "--progress", "plain")
	for _, n := range images {
		if changed := digest(t, s.ref(n)) != before[n]; changed != (n == "api") {
			t.Errorf("%s: its digest changed: %v", n, changed)
		}
	}
	if n := len(s.target.Requests(t, `"PUT /v2/`, "/blobs/uploads/")) - uploads; n > 2 {
		t.Errorf("%d blobs were uploaded for one changed layer and its configuration", n)
	}
}

func digest(t *testing.T, ref string) string {
	t.Helper()
	out, err := exec.Command("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+ref).Output()
	if err != nil {
		t.Fatalf("skopeo inspect %s: %v", ref, err)
	}
	return strings.TrimSpace(string(out))
}

// TestOwnImages applies the root manifest as `make demo` does, but pushes what
// it makes, and runs it.
func TestOwnImages(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartRegistry(t)
	a := rig.NewAccount(t, rig.Superuser)
	root, dir := rig.Root(t), rig.Space(t, nil)
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	files := map[string]string{
		"dist/executor/kaniko-build":        read(rig.Binary(t)),
		"dist/executor/ca-certificates.crt": read("/etc/ssl/certs/ca-certificates.crt"),
		"dist/executor/busybox":             read("/bin/busybox"),
		"dist/base/busybox":                 read("/bin/busybox"),
	}
	for _, n := range []string{"kaniko-build.yaml", "images/executor/Dockerfile", "images/base/Dockerfile", "images/hello/Dockerfile", "images/hello/greeting"} {
		files[n] = strings.NewReplacer("image: kaniko-build/", "image: "+reg.Addr+"/own/", "FROM kaniko-build/", "FROM "+reg.Addr+"/own/").Replace(read(filepath.Join(root, n)))
	}
	rig.Write(t, dir, files)
	o := a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + filepath.Join(rig.Space(t, a), "state")}}, rig.Binary(t), "apply", "--push", "--progress", "plain")
	for _, n := range []string{"executor", "executor:debug", "executor:slim", "warmer", "base", "hello"} {
		accepted(t, reg.Addr+"/own/"+n)
		n = n[strings.IndexByte(n, ':')+1:]
		if !strings.Contains(o.Stdout, n) {
			t.Errorf("stdout does not name %s:\n%s", n, o.Stdout)
		}
	}
	if out := pull(t, reg.Addr+"/own/hello").start(t, nil)(); out != files["images/hello/greeting"] {
		t.Errorf("hello printed %q", out)
	}
	if out := pull(t, reg.Addr+"/own/executor").start(t, nil, "/kaniko/executor", "version")(); !strings.Contains(out, "ersion") && out == "" {
		t.Errorf("executor version printed %q", out)
	}
	d := pull(t, reg.Addr+"/own/executor")
	for _, p := range []string{"kaniko/executor", "kaniko/ssl/certs/ca-certificates.crt", "kaniko/.docker", "workspace"} {
		if _, err := os.Stat(filepath.Join(d.dir, "rootfs", p)); err != nil {
			t.Error(err)
		}
	}
}

// TestStepsSeeAndMayLittle looks around from inside a RUN.
func TestStepsSeeAndMayLittle(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Debian)
	for _, kind := range rig.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			a := rig.NewAccount(t, kind)
			dir, state := rig.Space(t, nil), filepath.Join(rig.Space(t, a), "state")
			dockerfile := `FROM debian
RUN find /proc/sys /proc/irq /proc/bus /proc/sysrq-trigger -type f 2>/dev/null | while read -r f; do test -w "$f" && echo "$f"; done > /writable; true
RUN for f in /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger; do (echo 1 > $f) 2>/dev/null && echo $f; done > /written; true
RUN ls -d /proc/[0-9]* | wc -l > /processes
RUN env | grep -v -e ^PATH= -e ^HOME= -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD= > /env; true
RUN ls -A @STATE@ @HOME@ > /outside 2>/dev/null; true
`
			dockerfile = strings.NewReplacer("@STATE@", state, "@HOME@", a.Home).Replace(dockerfile)
			rig.Write(t, dir, map[string]string{"Dockerfile": dockerfile})
			rig.Give(t, dir, a)
			out := filepath.Join(rig.Space(t, a), "out")
			a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state, "A_SECRET=x"}}, rig.Binary(t), "build", "--progress", "plain",
				"--registry-mirror", "docker.io="+reg.Addr, "-o", "type=local,dest="+out, dir)
			for name, what := range map[string]string{
				"writable": "files below /proc that a step may write", "written": "files below /proc that a step wrote",
				"env": "variables of the environment that leaked", "outside": "files of the host that a step sees",
			} {
				b, err := os.ReadFile(filepath.Join(out, name))
				if err != nil {
					t.Error(err)
				} else if len(b) > 0 {
					t.Errorf("%s:\n%s", what, b)
				}
			}
			b, err := os.ReadFile(filepath.Join(out, "processes"))
			if n := strings.TrimSpace(string(b)); err != nil || !slices.Contains([]string{"2", "3", "4"}, n) {
				t.Errorf("a step sees %q processes (%v), want its own", n, err)
			}
		})
	}
}

// TestSetuidProgramsWork uses su from a user in a RUN.
func TestSetuidProgramsWork(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Debian)
	for _, kind := range []rig.Kind{rig.Superuser, rig.Subuid} {
		t.Run(string(kind), func(t *testing.T) {
			a := rig.NewAccount(t, kind)
			dir := rig.Space(t, nil)
			rig.Write(t, dir, map[string]string{"Dockerfile": `FROM debian
RUN useradd -m u && passwd -d root
USER u
RUN test "$(id -u)" != 0 && test "$(su -c 'id -u' root)" = 0
RUN su -c 'touch /made && chown 12:34 /made' root
`})
			rig.Give(t, dir, a)
			a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + filepath.Join(rig.Space(t, a), "state")}}, rig.Binary(t), "build",
				"--progress", "plain", "--registry-mirror", "docker.io="+reg.Addr, "-o", "type=oci,dest="+filepath.Join(rig.Space(t, a), "out.tar"), dir)
		})
	}
}
