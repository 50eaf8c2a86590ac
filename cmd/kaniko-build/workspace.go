package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// manifestFlags choose a manifest and what fills it in.
type manifestFlags struct {
	files    []string
	profiles []string
	vars     []string
	varFiles []string
	sets     []string
	allow    []string

	brought checkouts // repositories that reading the manifest took
}

func (f *manifestFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVarP(&f.files, "file", "f", nil, "the manifest; further ones are merged over it (default: kaniko-build.yaml here or above, up to the git root, and kaniko-build.override.yaml beside it unless CI is set)")
	fl.StringArrayVar(&f.profiles, "profile", nil, "turn a profile of the manifest on; none turns off those that their conditions turn on")
	fl.StringArrayVar(&f.vars, "var", nil, "set a variable of the manifest, NAME=VALUE")
	fl.StringArrayVar(&f.varFiles, "var-file", nil, "set variables from a YAML file")
	fl.StringArrayVar(&f.sets, "set", nil, "change targets, TARGET.KEY=YAML; patterns, KEY+ and KEY- as in the manifest: '*.platforms+=[linux/arm64]'")
	fl.StringArrayVar(&f.allow, "allow", nil, "allow what the manifest may not do by itself: fs:DIR, paths that lead to a directory outside of the workspace; and what files of other repositories may not: env, hooks, outputs, registries, secrets, ssh, unpinned")
}

// workspace is a manifest that was read, and the directory its paths start from.
type workspace struct {
	root     string
	manifest *schema.Manifest
	brought  checkouts
	// keepGoing leaves the mistakes of a target to its nodes, which fail by them: those in
	// its Dockerfile, and in what it names that is not there.
	keepGoing bool
}

func (f *manifestFlags) read(ctx context.Context) (*workspace, error) {
	return f.readBy(ctx, os.DirFS)
}

// readBy is read with the workspace's files as open shows them.
func (f *manifestFlags) readBy(ctx context.Context, open func(root string) fs.FS) (*workspace, error) {
	defer reading()()
	if len(f.files) == 1 && isRepository(f.files[0]) {
		return f.readRepository(ctx, f.files[0])
	}
	files, err := f.find()
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(files[0])
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", files[0], err)
	}
	w := &workspace{root: filepath.Dir(abs)}
	w.manifest, err = f.parseFiles(ctx, open(w.root), files)
	w.brought = f.brought
	return w, unreadable(files[0], err)
}

// parse reads the manifest in another state of the workspace.
func (f *manifestFlags) parse(ctx context.Context, fsys fs.FS) (*schema.Manifest, error) {
	files, err := f.find()
	if err != nil {
		return nil, err
	}
	return f.parseFiles(ctx, fsys, files)
}

// parseFiles reads the first of names in fsys, the directory that it is in, and
// merges the others over it. Those that fsys lacks are read from where they are.
func (f *manifestFlags) parseFiles(ctx context.Context, fsys fs.FS, names []string) (*schema.Manifest, error) {
	abs, err := filepath.Abs(names[0])
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", names[0], err)
	}
	root := filepath.Dir(abs)
	o, err := f.options(ctx, root)
	if err != nil {
		return nil, err
	}
	for _, file := range names[1:] {
		if file, err = filepath.Abs(file); err != nil {
			return nil, fmt.Errorf("find %s: %w", file, err)
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", file, err)
		}
		text, err := fs.ReadFile(fsys, filepath.ToSlash(name))
		if err != nil {
			text, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, unreadable(file, err)
		}
		o.Over = append(o.Over, schema.File{Name: filepath.ToSlash(name), Text: text})
	}
	return schema.Parse(fsys, filepath.Base(abs), o)
}

// reading lets the heap grow until back is called, while a manifest and its Dockerfiles
// are read: what is made of them stays, and to look for garbage in it is a quarter of
// the work. 1,000 targets take 100 MB without any look.
func reading() (back func()) {
	percent, limit := debug.SetGCPercent(readingGC), debug.SetMemoryLimit(readingLimit)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

const (
	readingGC    = 800       // per cent
	readingLimit = 160 << 20 // bytes, from which on it is looked for all the same
)

// find is the files of the manifest: those of -f, else what lies here.
func (f *manifestFlags) find() ([]string, error) {
	if len(f.files) > 0 {
		for _, name := range f.files {
			if err := unreadable(name, files.Check(name)); err != nil {
				return nil, err
			}
		}
		return f.files, nil
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	file, err := schema.Discover(here, uint32(os.Getuid()), owners)
	if err != nil {
		return nil, err
	}
	if err := unreadable(file, files.Check(file)); err != nil {
		return nil, err
	}
	if os.Getenv("CI") != "" {
		return []string{file}, nil
	}
	over, err := schema.Override(file, uint32(os.Getuid()), owners)
	if err != nil || over == "" {
		return []string{file}, err
	}
	return []string{file, over}, nil
}

// unreadable is a manifest that is not there or may not be read, by its name.
func unreadable(file string, err error) error {
	var kind *files.KindError
	var usage usageError
	switch {
	case errors.As(err, &usage): // it is about a flag
		return err
	case errors.Is(err, fs.ErrNotExist) && file == "-":
		return &diag.Problem{What: "a manifest is not read from standard input", Hint: "its paths count from the directory that it is in: write it to a file, and name that with -f"}
	case errors.As(err, &kind):
		return &diag.Problem{Pos: diag.Pos{File: file}, What: "the manifest is " + kind.Kind, Hint: "a manifest is a file, kaniko-build.yaml or what -f names"}
	case errors.Is(err, unix.ELOOP):
		return &diag.Problem{Pos: diag.Pos{File: file}, What: "the manifest is a link that leads round in a circle", Hint: "make it a file"}
	case errors.Is(err, fs.ErrNotExist):
		return &diag.Problem{Pos: diag.Pos{File: file}, What: "there is no such manifest", Hint: "kaniko-build reads kaniko-build.yaml; name another with -f"}
	case errors.Is(err, fs.ErrPermission):
		return &diag.Problem{Pos: diag.Pos{File: file}, What: "the manifest cannot be read: permission denied", Hint: "make it readable for this user"}
	}
	return err
}

// options is what flags and the environment say to the manifest in root.
func (f *manifestFlags) options(ctx context.Context, root string) (schema.Options, error) {
	o := schema.Options{
		WorkspaceName: filepath.Base(root), LookupEnv: os.LookupEnv, Profiles: f.profiles, Now: time.Now(),
		Git:   func(fact string) (string, error) { return gitFact(ctx, root, fact) },
		Trust: func(name string) error { return schema.Trust(filepath.Join(root, name), uint32(os.Getuid()), owners) },
	}
	if epoch, err := sourceDateEpoch(); err != nil {
		return o, err
	} else if epoch != nil {
		o.Now = time.Unix(*epoch, 0)
	}
	for _, v := range f.vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return o, usageError{fmt.Errorf("--var %q: write NAME=VALUE", v)}
		}
		o.Vars = append(o.Vars, schema.Setting{Name: name, Value: value})
	}
	for _, v := range f.sets {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return o, usageError{fmt.Errorf("--set %q: write TARGET.KEY=VALUE", v)}
		}
		o.Sets = append(o.Sets, schema.Setting{Name: name, Value: value})
	}
	for _, name := range f.varFiles {
		b, err := files.Read(name, maxVarFile)
		if err != nil {
			return o, usageError{fmt.Errorf("--var-file %s: %w\n  hint: name a YAML file with NAME: VALUE in each line", name, pathless(err))}
		}
		o.VarFiles = append(o.VarFiles, schema.File{Name: name, Text: b})
	}
	if f.brought == nil {
		f.brought = checkouts{}
	}
	o.Repository, o.Archive = f.brought.bring(ctx), f.brought.fetch(ctx)
	for _, a := range f.allow {
		dir, ok := strings.CutPrefix(a, "fs:")
		if !ok {
			for name := range strings.SplitSeq(a, ",") {
				if !slices.Contains(schema.Allowances(), name) {
					return o, usageError{fmt.Errorf("--allow %q: write fs:DIR, or %s", a, strings.Join(schema.Allowances(), ", "))}
				}
				o.Allow = append(o.Allow, name)
			}
			continue
		}
		if dir == "" {
			return o, usageError{fmt.Errorf("--allow %q: write fs:DIR", a)}
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return o, fmt.Errorf("find %s: %w", dir, err)
		}
		rel, err := filepath.Rel(root, abs)
		if err != nil {
			return o, fmt.Errorf("find %s: %w", dir, err)
		}
		o.AllowFS = append(o.AllowFS, filepath.ToSlash(abs), filepath.ToSlash(rel))
	}
	return o, nil
}

// owners tells who owns a file, and what it leads to if it is a link.
func owners(name string) ([]uint32, error) {
	var own, target unix.Stat_t
	if err := unix.Lstat(name, &own); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	if own.Mode&unix.S_IFMT != unix.S_IFLNK {
		return []uint32{own.Uid}, nil
	}
	if err := unix.Stat(name, &target); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return []uint32{own.Uid, target.Uid}, nil
}

// gitFact asks git for one fact of the work tree.
func gitFact(ctx context.Context, dir, fact string) (string, error) {
	args := map[string][]string{
		"sha":    {"rev-parse", "--verify", "HEAD"},
		"branch": {"branch", "--show-current"},
		"tag":    {"describe", "--tags", "--exact-match", "HEAD"},
		"url":    {"remote", "get-url", "origin"},
		"dirty":  {"status", "--porcelain"},
	}[fact]
	if args == nil {
		return "", fmt.Errorf("internal error: no git fact %q", fact)
	}
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = dir
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	text := strings.TrimSpace(out.String())
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("git is not installed: %w", schema.ErrNoGit)
	case errors.As(err, &exit) && (fact == "tag" || fact == "url"):
		return "", nil // none
	case errors.As(err, &exit):
		return "", fmt.Errorf("git %s: %s: %w", args[0], strings.TrimSpace(errs.String()), schema.ErrNoGit)
	case err != nil:
		return "", fmt.Errorf("ask git: %w", err)
	case fact == "dirty":
		return fmt.Sprint(text != ""), nil
	}
	return text, nil
}

// commitTime is when the commit was made that is checked out in dir: 0 outside
// of git. It asks git with what the environment says of it.
func commitTime(ctx context.Context, dir string) (int64, error) {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
			break
		}
		if d == filepath.Dir(d) {
			return 0, nil
		}
	}
	c := exec.CommandContext(ctx, "git", "-C", dir, "log", "-1", "--format=%ct")
	c.Env = append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(errs.String(), "does not have any commits yet") {
		return 0, nil
	}
	var n int64
	if err == nil {
		n, err = strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
	} else if text := strings.TrimSpace(errs.String()); text != "" {
		err = errors.New(oneLine(text))
	}
	if err != nil {
		return 0, &diag.Problem{What: fmt.Sprintf("reproducible: the time of the commit in %s: %v", dir, err), Hint: "set SOURCE_DATE_EPOCH to the time that files get at most"}
	}
	return n, nil
}

// at gives a problem the place it is about.
func at(err error, pos diag.Pos) error {
	var one *diag.Problem
	if errors.As(err, &one) && one.Pos == (diag.Pos{}) {
		return &diag.Problem{Pos: pos, What: one.What, Hint: one.Hint}
	}
	return err
}

// path is a path of the manifest as a real one.
func (w *workspace) path(p string) string {
	if path.IsAbs(p) {
		return p
	}
	if dir, ok := w.brought.path(w.manifest.Repositories, p); ok {
		return dir
	}
	return filepath.Join(w.root, filepath.FromSlash(p))
}

// plan plans the selected targets.
func (w *workspace) plan(selection []string) (*plan.Plan, error) {
	defer reading()()
	return plan.Make(w.manifest, selection, plan.Facts{Platform: executor.HostPlatform()}, dockerfiles{w, w.places(), &executor.Dockerfiles{}})
}

// dockerfiles tells a plan what Dockerfiles refer to.
type dockerfiles struct {
	w     *workspace
	at    places
	texts *executor.Dockerfiles
}

func (d dockerfiles) References(t schema.Target, platform string) ([]plan.Reference, error) {
	r, err := d.w.request(&t, platform)
	if err != nil || r.Mistake != nil {
		return nil, err
	}
	refs, err := d.texts.References(r)
	if err != nil && d.w.keepGoing {
		return nil, nil // its node will fail by it, and leave the others alone
	}
	if err != nil {
		return nil, d.at.err(err)
	}
	out := make([]plan.Reference, len(refs))
	for i, ref := range refs {
		out[i] = plan.Reference{Name: ref.Name, Pos: d.at.pos(ref.Pos), Use: ref.Use, Platform: ref.Platform, Unresolved: ref.Unresolved, Context: ref.Context}
	}
	return out, nil
}

// request is a target as the executor takes it, without its parents.
func (w *workspace) request(t *schema.Target, platform string) (executor.Request, error) {
	r, err := w.wellFormed(t, platform)
	if err != nil && w.keepGoing {
		r.Mistake, err = err, nil
	}
	return r, err
}

// wellFormed is the request of a target without mistakes; with one it is what there was
// of it so far.
func (w *workspace) wellFormed(t *schema.Target, platform string) (executor.Request, error) {
	r := executor.Request{
		ID: t.Name, Context: w.path(t.Context), Stage: t.Stage, Platform: platform,
		Labels: t.Labels, NoCache: t.NoCache, NoCacheFor: t.NoCacheStages, Names: t.RefNames(),
		Args: map[string]*string{}, Contexts: map[string]string{},
	}
	r.Check = w.check()
	r.Format = executor.Format{
		Docker: t.Executor.Docker, Rewrite: t.Executor.Reproducible,
		Compression: executor.Compression{Type: executor.Algorithm(t.Executor.Compression), Level: t.Executor.CompressionLevel},
	}
	if err := r.Format.Check(); err != nil {
		return r, at(err, t.Executor.Pos)
	}
	var err error
	if r.Format.Annotations, err = annotations(t, "manifest"); err != nil {
		return r, err
	}
	if r.Format.Index, err = annotations(t, "index"); err != nil {
		return r, err
	}
	if r.Format.Descriptor, err = annotations(t, "manifest-descriptor"); err != nil {
		return r, err
	}
	if r.Format.IndexDescriptor, err = annotations(t, "index-descriptor"); err != nil {
		return r, err
	}
	if r.Attest = (executor.Attest{Provenance: t.Attest.Provenance, SBOM: t.Attest.SBOM}); r.Attest != (executor.Attest{}) && t.Executor.Docker {
		return r, &diag.Problem{Pos: t.Attest.Pos, What: fmt.Sprintf("target %q: Docker's image format has no attestations", t.Name), Hint: "write imageFormat: oci, or attest: {provenance: false, sbom: false}"}
	}
	r.Network = t.Network
	r.Resources = executor.Resources{MilliCPU: t.Resources.MilliCPU, Memory: t.Resources.Memory}
	for k, v := range t.Args {
		r.Args[k] = &v
	}
	if err := checkDirectory(r.Context, t); err != nil {
		return r, err
	}
	if t.Inline != nil {
		r.Dockerfile = executor.Text{Name: inlineName(t), Data: []byte(t.Inline.Text)}
	} else {
		var err error
		file := w.path(t.Dockerfile)
		if err = w.brought.confined(w.manifest.Repositories, t.Dockerfile, file); err == nil {
			r.Dockerfile, r.Ignore, err = readDockerfile(file, t.Dockerfile)
		}
		if err != nil {
			pos := t.DockerfilePos
			if pos == (diag.Pos{}) {
				pos = t.Pos
			}
			return r, &diag.Problem{Pos: pos, What: fmt.Sprintf("target %q: %v", t.Name, err), Hint: "write it, or name another with dockerfile:"}
		}
	}
	for _, c := range t.Contexts {
		switch c.Kind {
		case schema.ContextDir:
			r.Contexts[c.Name] = w.path(c.Value)
		case schema.ContextImage:
			r.Contexts[c.Name] = "docker-image://" + c.Value
		case schema.ContextOCI:
			r.Contexts[c.Name] = "oci-layout://" + w.path(c.Value)
		case schema.ContextTarget:
			r.Contexts[c.Name] = "node:" + c.Value // made exact by requests
		default:
			r.Contexts[c.Name] = laterContext // fetched when it is built
		}
	}
	return r, nil
}

// laterContext stands for a named context that nobody has asked for yet.
const laterContext = "later:"

// check is the manifest's lint as a check directive.
func (w *workspace) check() string {
	var parts []string
	if l := w.manifest.Lint; len(l.Skip) > 0 {
		parts = append(parts, "skip="+strings.Join(l.Skip, ","))
	}
	if w.manifest.Lint.FailOnWarnings {
		parts = append(parts, "error=true")
	}
	return strings.Join(parts, ";")
}

// grant adds the secrets and agents that a target may use.
func (w *workspace) grant(r *executor.Request, t *schema.Target) error {
	var l diag.List
	for _, g := range t.Secrets {
		for _, s := range w.manifest.Secrets {
			if s.ID != g.ID {
				continue
			}
			file, err := w.secretPath(s.File)
			if err != nil {
				return err
			}
			if s.Optional {
				if _, set := os.LookupEnv(s.Env); s.Env != "" && !set {
					continue
				}
				if _, err := os.Stat(file); s.Env == "" && errors.Is(err, fs.ErrNotExist) {
					continue
				}
			}
			if _, set := os.LookupEnv(s.Env); s.Env != "" && !set {
				l.Add(s.Pos, "set it, or make the secret optional", "secret %q: the variable %s is not set", s.ID, s.Env)
			}
			if _, err := os.Stat(file); s.Env == "" && errors.Is(err, fs.ErrNotExist) {
				l.Add(s.Pos, "write it, or make the secret optional", "secret %q: there is no file %s", s.ID, s.File)
			}
			r.Secrets = append(r.Secrets, executor.Secret{ID: g.As, File: file, Env: s.Env})
		}
	}
	for _, name := range t.SSH {
		agent := executor.SSH{ID: name.Name}
		for _, s := range w.manifest.SSH {
			if s.ID != name.Name {
				continue
			}
			for _, k := range s.Keys {
				file, err := w.secretPath(k)
				if err != nil {
					return err
				}
				if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
					l.Add(s.Pos, "write it, or take it out of keys", "ssh agent %q: there is no file %s", s.ID, k)
				}
				agent.Paths = append(agent.Paths, file)
			}
		}
		if len(agent.Paths) == 0 {
			sock := os.Getenv("SSH_AUTH_SOCK")
			if sock == "" {
				l.Add(name.Pos, "start ssh-agent, or list keys under ssh:", "ssh %q needs an agent, and SSH_AUTH_SOCK is not set", name.Name)
				continue
			}
			agent.Paths = []string{sock}
		}
		r.SSH = append(r.SSH, agent)
	}
	return l.Err()
}

func (w *workspace) secretPath(p string) (string, error) {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the home directory: %w", err)
		}
		return filepath.Join(home, rest), nil
	}
	if p == "" {
		return "", nil
	}
	return w.path(p), nil
}

func checkDirectory(dir string, t *schema.Target) error {
	fi, err := os.Stat(dir)
	if err == nil && fi.IsDir() {
		return nil
	}
	pos := t.ContextPos
	if pos == (diag.Pos{}) {
		pos = t.Pos
	}
	what := fmt.Sprintf("target %q: the context %s does not exist", t.Name, t.Context)
	if err == nil {
		what = fmt.Sprintf("target %q: the context %s is not a directory", t.Name, t.Context)
	}
	return &diag.Problem{Pos: pos, What: what, Hint: "context: is a directory, relative to the manifest"}
}

const (
	maxDockerfile = 16 << 20 // bytes
	maxVarFile    = 2 << 20  // bytes
)

// readDockerfile reads a Dockerfile and the ignore file beside it.
func readDockerfile(file, name string) (executor.Text, *executor.Text, error) {
	b, err := files.Read(file, maxDockerfile)
	var kind *files.KindError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return executor.Text{}, nil, fmt.Errorf("the Dockerfile %s does not exist", name)
	case errors.As(err, &kind):
		return executor.Text{}, nil, fmt.Errorf("the Dockerfile %s is %s", name, kind.Kind)
	case err != nil:
		return executor.Text{}, nil, fmt.Errorf("read the Dockerfile %s: %w", name, pathless(err))
	}
	text := executor.Text{Name: name, Data: b}
	ignore, err := files.Read(file+".dockerignore", maxDockerfile)
	if errors.Is(err, fs.ErrNotExist) {
		return text, nil, nil
	}
	if err != nil {
		return executor.Text{}, nil, fmt.Errorf("read %s.dockerignore: %w", name, pathless(err))
	}
	return text, &executor.Text{Name: name + ".dockerignore", Data: ignore}, nil
}

// pathless is what the system says of a file that the caller names.
func pathless(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// edges is what every target needs, for selections that follow edges.
func (w *workspace) edges() (map[string][]string, error) {
	var all []string
	for _, t := range w.manifest.Targets {
		all = append(all, t.Name)
	}
	p, err := w.plan(all)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, e := range p.Edges {
		t := p.Node(e.Node).Target.Name
		out[t] = append(out[t], p.Node(e.Needs).Target.Name)
	}
	return out, nil
}

// granted gives requests the secrets and agents that their targets may use. One
// that is missing and not optional is a mistake, before any node starts.
func (w *workspace) granted(p *plan.Plan, requests []executor.Request) error {
	var l diag.List
	for i := range requests {
		err := w.grant(&requests[i], p.Node(graph.ID(requests[i].ID)).Target)
		if w.keepGoing {
			requests[i].Mistake = cmp.Or(requests[i].Mistake, err)
		} else {
			l.AddErr(diag.Pos{}, err)
		}
	}
	return l.Err()
}

// requests are a plan's nodes, parents first, as the executor takes them; without
// secrets and agents.
func (w *workspace) requests(p *plan.Plan) ([]executor.Request, error) {
	var out []executor.Request
	for _, id := range p.Order {
		n := p.Node(id)
		if n.Index != nil {
			continue
		}
		r, err := w.request(n.Target, n.Platform)
		if err != nil {
			return nil, err
		}
		r.ID, r.Nameless = string(id), n.Joined
		r.Images = map[string]string{}
		for name, parent := range n.Parents {
			context, _, _ := strings.Cut(name, "::")
			if r.Contexts[name] != "" || r.Contexts[context] != "" {
				r.Contexts[name] = "node:" + string(parent)
			} else {
				r.Images[name] = string(parent)
			}
		}
		for name, published := range n.Published {
			image := published.Image
			if ref, _, late := strings.Cut(image, "${"); late { // fetch completes it
				image = ref[:strings.LastIndexByte(ref, ':')]
			}
			r.Contexts[name] = "docker-image://" + image
		}
		out = append(out, r)
	}
	return out, nil
}
