package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sys/unix"
)

// Names of the images that Make knows.
const (
	Debian  = "debian"
	Golang  = "golang"
	Busybox = "busybox"
)

// All lists them.
var All = []string{Debian, Golang, Busybox}

// references are what an image is called in a registry, below library/.
var references = map[string][]string{
	Debian:  {"debian:bookworm-slim", "debian:bookworm", "debian:latest"},
	Golang:  {"golang:1.26", "golang:latest"},
	Busybox: {"busybox:latest"},
}

// recipe changes whenever the same sources would make another image.
const recipe = "2"

// stamp is the time of every file that was made along with the image.
var stamp = time.Unix(1750000000, 0).UTC()

// tools are Debian packages that golang has beside Go, as users of it expect.
var tools = []string{"ca-certificates", "gcc", "libc6-dev", "git", "make"}

// Cache is the folder that Make keeps images in: that of the user, so that a
// fresh clone finds what another one made.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder: %w", err)
	}
	return filepath.Join(dir, "kaniko-build-mirror"), nil
}

// Make returns an OCI layout directory for each name, and makes those that are
// not in cache. It tells w what it does. Two processes do not make one twice.
func Make(ctx context.Context, cache string, names []string, w io.Writer) ([]string, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	m := &maker{cache: cache, say: w}
	dirs := make([]string, len(names))
	for _, n := range []string{Golang, Debian, Busybox} { // making golang makes debian too
		i := slices.Index(names, n)
		if i < 0 {
			continue
		}
		if dirs[i], err = m.layout(ctx, n); err != nil {
			return nil, fmt.Errorf("make %s: %w", n, err)
		}
	}
	if i := slices.Index(dirs, ""); i >= 0 {
		return nil, fmt.Errorf("no recipe for %q; there are %s", names[i], strings.Join(All, ", "))
	}
	return dirs, nil
}

func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

// maker makes images into cache.
type maker struct {
	cache string
	say   io.Writer
}

// layout finds or makes one image.
func (m *maker) layout(ctx context.Context, name string) (string, error) {
	key, err := m.key(ctx, name)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(m.cache, name+"-"+key)
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
		return dir, nil
	}
	start := time.Now()
	fmt.Fprintf(m.say, "making %s (once; kept in %s)\n", references[name][0], m.cache)
	tmp, err := os.MkdirTemp(m.cache, "tmp-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	var made map[string]v1.Image
	if name == Busybox {
		img, err := m.busybox(ctx, tmp)
		if err != nil {
			return "", err
		}
		made = map[string]v1.Image{Busybox: img}
	} else if made, err = m.debian(ctx, tmp, name == Golang); err != nil {
		return "", err
	}
	for n, img := range made {
		k, err := m.key(ctx, n)
		if err != nil {
			return "", err
		}
		if err := m.keep(tmp, n, filepath.Join(m.cache, n+"-"+k), img); err != nil {
			return "", err
		}
	}
	fmt.Fprintf(m.say, "made %s in %.0f s\n", references[name][0], time.Since(start).Seconds())
	return dir, nil
}

// key names what an image is made of, as far as it is known beforehand.
func (m *maker) key(ctx context.Context, name string) (string, error) {
	lines := []string{recipe, name, runtime.GOARCH}
	switch name {
	case Golang:
		v, err := goEnv(ctx, "GOVERSION")
		if err != nil {
			return "", err
		}
		lines = append(append(lines, v), tools...)
	case Busybox:
		b, err := os.ReadFile(busyboxPath)
		if err != nil {
			return "", fmt.Errorf("Debian's busybox-static is needed: %w", err)
		}
		s := sha256.Sum256(b)
		lines = append(lines, hex.EncodeToString(s[:]))
	}
	s := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(s[:6]), nil
}

// keep writes img as a layout that has all of the image's names.
func (m *maker) keep(tmp, name, dir string, img v1.Image) error {
	made := filepath.Join(tmp, "layout-"+name)
	p, err := layout.Write(made, empty.Index)
	if err != nil {
		return err
	}
	for _, r := range references[name] {
		if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r})); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(made, dir)
}

// debian makes debian and, on top of it and of the same tree, golang.
func (m *maker) debian(ctx context.Context, tmp string, withGo bool) (map[string]v1.Image, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("debootstrap needs root: run as root, or with sudo")
	}
	root := filepath.Join(tmp, "root")
	if err := m.run(ctx, "debootstrap", "--variant=minbase", "bookworm", root, debianURL()); err != nil {
		return nil, err
	}
	if err := settle(root); err != nil {
		return nil, err
	}
	if err := trim(root); err != nil {
		return nil, err
	}
	base, err := packDir(filepath.Join(tmp, "base.tar.gz"), root, nil)
	if err != nil {
		return nil, err
	}
	img, err := build(v1.Config{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cmd: []string{"bash"},
	}, base)
	if err != nil {
		return nil, err
	}
	made := map[string]v1.Image{Debian: img}
	if !withGo {
		return made, nil
	}
	before, err := snapshot(root)
	if err != nil {
		return nil, err
	}
	if err := m.install(ctx, root, tools); err != nil {
		return nil, err
	}
	if err := trim(root); err != nil {
		return nil, err
	}
	extra, err := packDir(filepath.Join(tmp, "tools.tar.gz"), root, before)
	if err != nil {
		return nil, err
	}
	goroot, err := goEnv(ctx, "GOROOT")
	if err != nil {
		return nil, err
	}
	version, err := goEnv(ctx, "GOVERSION")
	if err != nil {
		return nil, err
	}
	goLayer, err := packGo(filepath.Join(tmp, "go.tar.gz"), goroot)
	if err != nil {
		return nil, err
	}
	made[Golang], err = build(v1.Config{
		Env: []string{
			"PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"GOLANG_VERSION=" + strings.TrimPrefix(version, "go"), "GOTOOLCHAIN=local", "GOPATH=/go",
		},
		Cmd: []string{"bash"}, WorkingDir: "/go",
	}, base, extra, goLayer)
	return made, err
}

func debianURL() string {
	if u := os.Getenv("DEBIAN_MIRROR"); u != "" {
		return u
	}
	return "http://deb.debian.org/debian"
}

// install adds packages to the tree at root.
func (m *maker) install(ctx context.Context, root string, packages []string) error {
	// The name server is this machine's while apt-get runs.
	conf, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	resolv := filepath.Join(root, "etc/resolv.conf")
	if err := os.WriteFile(resolv, conf, 0o644); err != nil {
		return err
	}
	apt := "DEBIAN_FRONTEND=noninteractive apt-get -o APT::Sandbox::User=root -q "
	return m.run(ctx, "chroot", root, "/bin/sh", "-ec",
		apt+"update; "+apt+"install -y --no-install-recommends "+strings.Join(packages, " "))
}

func (m *maker) run(ctx context.Context, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if p := aptProxy(ctx); p != "" && os.Getenv("http_proxy") == "" {
		cmd.Env = append(cmd.Env, "http_proxy="+p)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%s: %w\n%s", argv[0], err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	return nil
}

// aptProxy is the proxy that apt was told of, which debootstrap does not read.
func aptProxy(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format", "%v", "Acquire::http::Proxy").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func goEnv(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("go env %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// settle makes the tree one for containers, as Debian's own images are.
func settle(root string) error {
	files := map[string]string{
		"etc/apt/apt.conf.d/docker-clean": "DPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true\"; };\n" +
			"Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n",
		"etc/apt/apt.conf.d/docker-no-languages": "Acquire::Languages \"none\";\n",
		"etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
		"etc/hostname":                           "debuerreotype\n",
		"etc/machine-id":                         "",
		"usr/sbin/policy-rc.d":                   "#!/bin/sh\nexit 101\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(root, "usr/sbin/policy-rc.d"), 0o755)
}

// trim takes out what the slim images lack, and what a run of apt leaves.
func trim(root string) error {
	gone := []string{
		"usr/share/man/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/groff/*", "usr/share/lintian/*", "usr/share/linda/*",
		"var/lib/apt/lists/*", "var/cache/apt/*", "var/cache/debconf/*-old", "var/cache/ldconfig/*", "var/lib/dpkg/*-old", "var/log/*.log", "var/log/apt/*",
		"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/resolv.conf", "tmp/*", "var/tmp/*", "root/.cache",
	}
	for _, g := range gone {
		found, err := filepath.Glob(filepath.Join(root, g))
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	return filepath.WalkDir(filepath.Join(root, "usr/share/doc"), func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "copyright" {
			return err
		}
		return os.Remove(p)
	})
}

// build makes an image of layers.
func build(c v1.Config, layers ...*blob) (v1.Image, error) {
	img := v1.Image(mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json"))
	img = mutate.ConfigMediaType(img, "application/vnd.oci.image.config.v1+json")
	for _, l := range layers {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{
			Created: v1.Time{Time: stamp}, CreatedBy: "test/mirror " + filepath.Base(l.file),
		}})
		if err != nil {
			return nil, err
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.Architecture, cf.OS, cf.Created, cf.Config = runtime.GOARCH, "linux", v1.Time{Time: stamp}, c
	return mutate.ConfigFile(img, cf)
}
