package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/executor"
	"kaniko-build/schema"
)

// dockerFlags are those of docker build that have another form elsewhere in this
// program, or none. docs/build.md lists all of them; a test compares.
type dockerFlags struct {
	hosts, allow, annotations []string
	cacheFrom, cacheTo        []string
	noCacheFor                []string
	load, quiet, check        bool
	squash                    bool
	call, shm, memory         string
}

// idle are flags that change nothing here: nothing else would come out of a build
// with them. One warning names those that are given.
var idle = []struct {
	name, short string
	yes         bool // it has no value
}{
	{name: "builder"}, {name: "cgroup-parent"}, {name: "compress", yes: true}, {name: "cpu-period"}, {name: "cpu-quota"}, {name: "cpu-shares", short: "c"},
	{name: "cpuset-cpus"}, {name: "cpuset-mems"}, {name: "debug", short: "D", yes: true}, {name: "disable-content-trust", yes: true}, {name: "force-rm", yes: true},
	{name: "memory-swap"}, {name: "rm", yes: true}, {name: "security-opt"}, {name: "stream", yes: true}, {name: "ulimit"},
}

// refused are flags that would change what is built, or where, and what to do
// instead.
var refused = map[string]string{
	"policy":        "policy: in a manifest has rules for base images and tags",
	"detach":        "run it in the background: kaniko-build build ... &",
	"invoke":        "run the image: kaniko-build load IMAGE, then docker run",
	"print":         "kaniko-build plan shows what would be built",
	"root":          "KANIKO_BUILD_STATE names the directory of the store",
	"server-config": "registries: in a manifest, or --registry-mirror",
}

func (f *dockerFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVar(&f.hosts, "add-host", nil, "a name for RUN steps, HOST:IP")
	fl.StringArrayVar(&f.allow, "allow", nil, "network.host is always allowed, and nothing else is")
	fl.StringArrayVar(&f.annotations, "annotation", nil, "annotate the image, [manifest|manifest-descriptor:]NAME=VALUE")
	fl.StringArrayVar(&f.cacheFrom, "cache-from", nil, "a cache to read, REPO, type=registry,ref=REPO or type=local,src=DIR")
	fl.StringArrayVar(&f.cacheTo, "cache-to", nil, "a cache to keep results in, REPO, type=registry,ref=REPO or type=local,dest=DIR")
	fl.StringSliceVar(&f.noCacheFor, "no-cache-filter", nil, "run every step of these stages")
	fl.BoolVar(&f.load, "load", false, "give the image to Docker, podman or containerd (one for several platforms to those that hold it)")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but the digest of the image's config")
	fl.BoolVar(&f.check, "check", false, "check the Dockerfile instead of building, as --call check")
	fl.BoolVar(&f.squash, "squash", false, "make one layer of all that the image adds to its base")
	fl.StringVar(&f.call, "call", "build", "build or check")
	fl.StringVar(&f.shm, "shm-size", "", "size of /dev/shm of RUN steps, 128m")
	fl.StringVarP(&f.memory, "memory", "m", "", "memory that RUN steps may use, 2g")
	for _, i := range idle {
		if i.yes {
			fl.BoolP(i.name, i.short, false, "changes nothing here")
		} else {
			fl.StringArrayP(i.name, i.short, nil, "changes nothing here")
		}
		hide(fl, i.name)
	}
	for name := range refused {
		fl.String(name, "", "is refused")
		hide(fl, name)
	}
	fl.Lookup("detach").NoOptDefVal = "true" // it has no value there
}

func hide(fl *pflag.FlagSet, name string) {
	if err := fl.MarkHidden(name); err != nil {
		panic("internal error: " + err.Error()) // the flag does not exist
	}
}

// look warns of flags that change nothing, and refuses those that would change
// what is built.
func (f *dockerFlags) look(c *cobra.Command, t terminal) error {
	for name, hint := range refused {
		if c.Flags().Changed(name) {
			return usageError{fmt.Errorf("there is no --%s\n  hint: %s", name, hint)}
		}
	}
	var given []string
	for _, i := range idle {
		if c.Flags().Changed(i.name) {
			given = append(given, "--"+i.name)
		}
	}
	if len(given) > 0 {
		fmt.Fprintf(t.err, "warning: without effect here: %s (see docs/build.md)\n", strings.Join(given, ", "))
	}
	for _, a := range f.allow {
		for one := range strings.SplitSeq(a, ",") {
			if one != "network.host" {
				return usageError{fmt.Errorf("--allow %s: no step has more rights than the others\n  hint: leave it out; RUN --security=insecure and --device are refused", one)}
			}
		}
	}
	switch f.call {
	case "build":
	case "check":
		f.check = true
	default:
		return usageError{fmt.Errorf("--call %s is not one of build and check\n  hint: kaniko-build plan shows stages and images", f.call)}
	}
	return nil
}

// set gives a request what the flags say.
func (f *dockerFlags) set(r *executor.Request) error {
	for _, h := range f.hosts {
		name, ip, ok := strings.Cut(h, "=")
		if !ok {
			name, ip, ok = strings.Cut(h, ":")
		}
		ip = strings.Trim(ip, "[]")
		if !ok || net.ParseIP(ip) == nil {
			return usageError{fmt.Errorf("--add-host %q: write HOST:IP\n  hint: host-gateway is an engine's; name the address itself", h)}
		}
		r.ExtraHosts = append(r.ExtraHosts, executor.ExtraHost{Name: name, IP: ip})
	}
	for _, a := range f.annotations {
		key, value, ok := strings.Cut(a, "=")
		if !ok {
			return usageError{fmt.Errorf("--annotation %q: write NAME=VALUE", a)}
		}
		level, name, some := strings.Cut(key, ":")
		if !some {
			level, name = "manifest", key
		}
		for one := range strings.SplitSeq(level, ",") {
			into := map[string]*map[string]string{"manifest": &r.Format.Annotations, "manifest-descriptor": &r.Format.Descriptor, "index": &r.Format.Index}[one]
			if into == nil {
				return usageError{fmt.Errorf("--annotation %q: no level %q\n  hint: manifest, manifest-descriptor and index are there", a, one)}
			}
			if *into == nil {
				*into = map[string]string{}
			}
			(*into)[name] = value
		}
	}
	r.NoCacheFor = f.noCacheFor
	r.Format.Single = r.Format.Single || f.squash
	for _, s := range []struct {
		flag, text string
		to         *int64
	}{{"--shm-size", f.shm, &r.ShmSize}, {"--memory", f.memory, &r.Resources.Memory}} {
		if s.text == "" {
			continue
		}
		n, err := units.RAMInBytes(s.text)
		if err != nil || n <= 0 {
			return usageError{fmt.Errorf("%s %q is no size\n  hint: write bytes, or 512m or 2g", s.flag, s.text)}
		}
		*s.to = n
	}
	return nil
}

// cache is what --cache-from and --cache-to make of a cache; those of other kinds
// are told of and left out: nothing but time depends on them.
func (f *dockerFlags) cache(t terminal, c *executor.Cache, write bool) (*executor.Cache, error) {
	place := func(flag, s string) (string, error) {
		kind, at := "registry", ""
		if !strings.Contains(s, "=") {
			at = s
		} else {
			for field := range strings.SplitSeq(s, ",") {
				switch k, v, _ := strings.Cut(field, "="); k {
				case "type":
					kind = v
				case "ref", "src", "dest":
					at = v
				}
			}
		}
		switch {
		case kind != "registry" && kind != "local":
			fmt.Fprintf(t.err, "warning: %s %s is left out: results are kept in a registry or a directory\n", flag, s)
			return "", nil
		case at == "":
			return "", usageError{fmt.Errorf("%s %q names no place\n  hint: type=registry,ref=HOST/PATH or type=local,dest=DIR", flag, s)}
		case kind == "local":
			abs, err := absolute(at)
			return "oci:" + abs, err
		}
		repo, _, _ := importer.Cut(at)
		return repo, nil
	}
	for _, s := range f.cacheTo {
		at, err := place("--cache-to", s)
		if err != nil {
			return nil, err
		}
		if at != "" {
			if c == nil {
				c = &executor.Cache{Run: true, Copy: true, Write: write}
			}
			c.Repo = at
		}
	}
	for _, s := range f.cacheFrom {
		at, err := place("--cache-from", s)
		if err != nil {
			return nil, err
		}
		switch {
		case at == "":
		case c == nil: // nowhere to keep what is new
			c = &executor.Cache{Run: true, Copy: true, Repo: at}
		case c.Repo != at && !slices.Contains(c.From, at):
			c.From = append(c.From, at)
		}
	}
	return c, nil
}

// dockerOutputs takes out of --output what this program has flags or the store for.
func (f *buildFlags) dockerOutputs() {
	f.outputs = slices.DeleteFunc(f.outputs, func(s string) bool {
		kind, dest, push := "", false, false
		for field := range strings.SplitSeq(s, ",") {
			switch k, v, _ := strings.Cut(field, "="); k {
			case "type":
				kind = v
			case "dest":
				dest = true
			case "push":
				push = v == "true"
			}
		}
		switch {
		case kind == "registry" || kind == "image" && push:
			f.push = true
		case kind == "docker" && !dest:
			f.docker.load = true
		case kind != "image" && kind != "cacheonly": // which the store has
			return false
		}
		return true
	})
}

// lint checks the Dockerfile of a request instead of building it.
func lint(ctx context.Context, t terminal, r executor.Request) error {
	warnings, err := executor.Check(ctx, r)
	for _, w := range warnings {
		fmt.Fprintf(t.out, "%s: %s: %s\n", w.Pos, w.Rule, w.Text)
	}
	return err
}

// place is a context as docker build takes it, and what comes from standard input
// with it: - is an archive or a Dockerfile.
func (f *buildFlags) place(t terminal, at string) (executor.Place, io.Reader, error) {
	place := executor.Place{At: at, Git: executor.GitFrom(os.Getenv)}
	if at != "-" {
		if remote, ok := importer.Remote(at); ok && strings.HasPrefix(remote, "git:") {
			p, err := placeOf(schema.NamedContext{Value: strings.TrimPrefix(remote, "git:")})
			p.Git.Plain = true
			return p, t.in, err
		}
		return place, t.in, nil
	}
	in := bufio.NewReaderSize(t.in, 1<<10)
	begin, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return place, nil, fmt.Errorf("read standard input: %w", err)
	}
	if isArchive(begin) {
		place.At = "tar://stdin"
		return place, in, nil
	}
	if f.file != "" {
		return place, nil, usageError{errors.New("the context - is a Dockerfile, and --file names another\n  hint: give a directory, or pipe an archive")}
	}
	f.file, place.At = "-", ""
	return place, in, nil
}

// isArchive tells whether something begins as a tar does, compressed or not.
func isArchive(begin []byte) bool {
	for _, magic := range [][]byte{{0x1f, 0x8b}, []byte("BZh"), {0xfd, '7', 'z', 'X', 'Z'}, {0x28, 0xb5, 0x2f, 0xfd}} {
		if bytes.HasPrefix(begin, magic) {
			return true
		}
	}
	return len(begin) > 262 && string(begin[257:262]) == "ustar"
}
