package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/dropin"
	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/cmd/kaniko-build/internal/secretflag"
	"kaniko-build/executor"
	"kaniko-build/executor/runner/docker"
	"kaniko-build/executor/runner/kubernetes"
	"kaniko-build/executor/runner/local"
	"kaniko-build/schema/diag"
)

// runFlags are those of every command that builds.
type runFlags struct {
	jobs      int
	memory    sizeFlag // of the whole run
	progress  string
	logDir    string
	report    string
	name      string // of what is built, for the report
	isolation string
	runner    string // "" is local
	image     string // of the containers of runners docker and kubernetes; "" is the default
	cluster   cluster
	mirrors   []string
	noCache   bool
	pull      bool
	metadata  string
	stopwatch *stopwatch // for the metadata file; made by show
	verify    string
	push      bool

	release      releaseFlags
	attest       attestFlags
	cache        cacheFlags
	reproducible bool
	compression  string
	level        int
	format       string

	// What the manifest asks of the whole run.
	snapshotMode string
	ignorePaths  []string
	retries      int
}

func (f *runFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.progress, "progress", "", "how to show progress: auto, tty (live), plain (the lines of an image together), interleaved, json or quiet (default auto)")
	complete(c, "progress", "auto", "tty", "plain", "interleaved", "json", "quiet")
	fl.StringVar(&f.logDir, "log-dir", "", "write the log of each image to a file DIR/NAME.log")
	fl.StringVar(&f.report, "report", "", "write what happened as one HTML page: graph, timeline, steps, logs")
	f.addInputs(c)
	fl.StringVar(&f.verify, "verify-cache", "", "build again without the cache and compare: all images, or a sample (sample:SEED chooses the same again)")
	fl.Lookup("verify-cache").NoOptDefVal = "sample"
	fl.StringVar(&f.metadata, "metadata-file", "", "write what was built as JSON")
	fl.BoolVar(&f.push, "push", false, "push the images to the registries of their names")
	f.release.add(c)
	fl.BoolVar(&f.reproducible, "reproducible", false, "set file times of new layers to at most SOURCE_DATE_EPOCH, else the commit's time, else 1970")
	fl.StringVar(&f.compression, "compression", "", "of new layers: gzip, zstd or none (default gzip)")
	fl.IntVar(&f.level, "compression-level", 0, "gzip 1 to 9, zstd 1 to 22 (default 3)")
	fl.StringVar(&f.format, "image-format", "", "oci or docker (default oci)")
	f.attest.add(c)
	f.cache.add(c)
	fl.IntVarP(&f.jobs, "jobs", "j", 0, "steps that run at once, over all images (default: the CPUs)")
}

// addInputs adds the flags that decide what is known: commands that only look
// have them too.
func (f *runFlags) addInputs(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.isolation, "isolation", os.Getenv("KANIKO_BUILD_ISOLATION"), "kind of container: userns, userns-single or inplace (default: the best there is; see doctor)")
	fl.StringVar(&f.runner, "runner", "", "where images are built: local, docker: a container of an engine (docker or podman) on this machine for each, or kubernetes: a pod for each (default: as the manifest says, else local)")
	fl.StringVar(&f.image, "runner-image", "", "what runners docker and kubernetes make containers of (default: as the manifest says, else "+docker.DefaultImage+")")
	complete(c, "runner", "local", "docker", "kubernetes")
	f.addMirrors(c)
	fl.BoolVar(&f.noCache, "no-cache", false, "run every step, whatever is known")
	fl.BoolVar(&f.pull, "pull", false, "fail when a registry cannot be asked what a tag is now, instead of taking its last answer with a warning")
}

func (f *runFlags) addMirrors(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.mirrors, "registry-mirror", nil, "pull from a mirror, [HOST=]MIRROR (HOST: docker.io)")
}

// open opens the executor as the flags say, with sink for its events. registries
// and inline are those of a manifest.
func (f *runFlags) open(ctx context.Context, sink executor.Sink, registries []executor.Registry, inline places) (*executor.Executor, error) {
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	switch f.isolation {
	case "", "userns", "userns-single", "inplace":
	default:
		return nil, usageError{fmt.Errorf("no isolation %q: choose userns, userns-single or inplace", f.isolation)}
	}
	if f.jobs < 0 {
		return nil, usageError{fmt.Errorf("--jobs %d: write how many steps may run at once\n  hint: without it, or with 0, it is as many as there are CPUs", f.jobs)}
	}
	for _, m := range f.mirrors {
		host, mirror, ok := strings.Cut(m, "=")
		if !ok {
			host, mirror = "docker.io", m
		}
		if host == "" || mirror == "" || strings.ContainsAny(m, " \t\n") {
			return nil, usageError{fmt.Errorf("--registry-mirror %q: write [HOST=]MIRROR, such as mirror.example.com", m)}
		}
		i := slices.IndexFunc(registries, func(r executor.Registry) bool { return r.Host == host })
		if i < 0 {
			registries = append(registries, executor.Registry{Host: host})
			i = len(registries) - 1
		}
		registries[i].Mirrors = append(registries[i].Mirrors, mirror)
	}
	epoch, err := sourceDateEpoch()
	if err != nil {
		return nil, err
	}
	var runner executor.Runner
	switch f.runner {
	case "", "local":
		runner = &local.Runner{Rung: f.isolation, Careful: !dropin.InImage(), Path: filepath.SplitList(os.Getenv("PATH"))}
	case "docker":
		if f.isolation != "" && f.isolation != "inplace" {
			return nil, usageError{fmt.Errorf("no isolation %q for the runner docker: it builds in place, in a container for each image", f.isolation)}
		}
		runner = &docker.Runner{Image: f.image}
	case "kubernetes":
		if f.isolation != "" && !slices.Contains(kubernetes.Rungs(), f.isolation) {
			return nil, usageError{fmt.Errorf("no isolation %q for pods: choose %s", f.isolation, strings.Join(kubernetes.Rungs(), " or "))}
		}
		pods := f.cluster.runner(f.image)
		pods.Rung = f.isolation
		runner = pods
	default:
		return nil, usageError{fmt.Errorf("no runner %q: choose local, docker or kubernetes", f.runner)}
	}
	jobs := f.jobs
	if f.afar() && jobs == 0 {
		jobs = podJobs
	}
	return executor.Open(ctx, executor.Options{
		State: state, Runner: runner, Jobs: jobs, Registries: registries,
		Getenv: os.Getenv, Sink: inline.sink(sink), Epoch: epoch, Pull: f.pull,
		SnapshotMode: f.snapshotMode, IgnorePaths: f.ignorePaths, Retries: f.retries,
	})
}

// written changes how images are written as the flags say. dir is where git is
// asked for the time of the commit.
func (f *runFlags) written(ctx context.Context, dir string, requests []executor.Request) error {
	var commit *int64
	for i := range requests {
		w := &requests[i].Format
		w.Rewrite = w.Rewrite || f.reproducible
		if f.compression != "" {
			w.Compression = executor.Compression{Type: executor.Algorithm(f.compression)}
		}
		if f.level != 0 {
			w.Compression.Level = f.level
		}
		switch f.format {
		case "":
		case "oci", "docker":
			w.Docker = f.format == "docker"
		default:
			return usageError{fmt.Errorf("no image format %q: choose oci or docker", f.format)}
		}
		if err := w.Check(); err != nil {
			return err
		}
		if !w.Rewrite {
			continue
		}
		if commit == nil {
			n, err := f.epoch(ctx, dir)
			if err != nil {
				return err
			}
			commit = &n
		}
		w.Epoch = commit
	}
	return nil
}

// epoch is the time for what is reproducible: SOURCE_DATE_EPOCH, else that of
// the commit.
func (f *runFlags) epoch(ctx context.Context, dir string) (int64, error) {
	n, err := sourceDateEpoch()
	if err != nil {
		return 0, err
	}
	if n != nil {
		return *n, nil
	}
	return commitTime(ctx, dir)
}

// sourceDateEpoch is SOURCE_DATE_EPOCH of the environment.
func sourceDateEpoch() (*int64, error) {
	v := os.Getenv("SOURCE_DATE_EPOCH")
	if v == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return nil, &diag.Problem{What: fmt.Sprintf("invalid SOURCE_DATE_EPOCH: %s", v), Hint: "it is a number of seconds since 1970"}
	}
	return &n, nil
}

// buildFlags are those of docker build, for one image.
type buildFlags struct {
	runFlags
	file, target, network, iidfile   string
	platforms                        []string
	tags, args, labels, secrets, ssh []string
	contexts, outputs                []string
	docker                           dockerFlags
}

func newBuild(t terminal) *cobra.Command {
	f := &buildFlags{}
	c := &cobra.Command{
		Use:   "build [flags] CONTEXT",
		Short: "Build one image, without a manifest",
		Long: `Build one image from a Dockerfile and a context, with the flags of docker build.
The context is a directory, an archive (tar://FILE, tar://stdin, https://…), an object of
a cloud (gs://, s3://, https://ACCOUNT.blob.core.windows.net/…) or a git repository
(git://HOST/PATH#REF, https://HOST/PATH.git#REF:DIR), with the variables for credentials that
kaniko knows; - is an archive or a Dockerfile from standard input. docs/build.md tells
of each flag of docker build what it does here.
With several platforms an image is built for each, and the names stand for an index of them.
The image lies in the store afterwards; -o writes it elsewhere, --push pushes it.`,
		Example: "  kaniko-build build -t hello .\n  kaniko-build build -f docker/web.Dockerfile -o type=oci,dest=web.tar .\n  kaniko-build build -t hello --platform linux/amd64,linux/arm64 .\n  kaniko-build build -t hello --attest type=provenance,mode=max .",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("build takes one argument, the context, and got %d\n  hint: kaniko-build build .", len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, t, args[0]) },
	}
	f.add(c)
	fl := c.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "the Dockerfile (default CONTEXT/Dockerfile; - reads standard input)")
	fl.StringArrayVarP(&f.tags, "tag", "t", nil, "name of the image, NAME[:TAG]")
	fl.StringArrayVar(&f.args, "build-arg", nil, "set a build argument, NAME=VALUE; NAME alone takes it from the environment")
	fl.StringVar(&f.target, "target", "", "stage to build (default: the last)")
	fl.StringArrayVar(&f.labels, "label", nil, "set a label, NAME=VALUE")
	fl.StringSliceVar(&f.platforms, "platform", nil, "platforms of the image, OS/ARCH[/VARIANT] (default: this machine's)")
	fl.StringArrayVar(&f.secrets, "secret", nil, "grant a secret, id=ID[,src=FILE|,env=NAME]")
	fl.StringArrayVar(&f.ssh, "ssh", nil, "grant an ssh agent, default|ID[=SOCKET|KEY[,KEY]]")
	fl.StringArrayVar(&f.contexts, "build-context", nil, "add a named context, NAME=DIR|docker-image://REF|oci-layout://DIR")
	fl.StringArrayVarP(&f.outputs, "output", "o", nil, "write the image, type=oci|docker|tar|local,dest=PATH[,rewrite-timestamp=true]")
	fl.StringVar(&f.iidfile, "iidfile", "", "write the digest of the image's config, or of its index, to a file")
	fl.StringVar(&f.network, "network", "", "network of RUN steps that do not choose: default, none or host")
	f.docker.add(c)
	return c
}

func (f *buildFlags) run(c *cobra.Command, t terminal, contextDir string) error {
	ctx := c.Context()
	if err := f.docker.look(c, t); err != nil {
		return err
	}
	if err := checkPlatforms("platform", f.platforms); err != nil {
		return err
	}
	f.platforms = normalPlatforms(f.platforms)
	f.dockerOutputs()
	if f.docker.quiet || f.progress == "none" {
		f.progress = "quiet"
	}
	if f.isolation == "default" { // docker's word for the best there is
		f.isolation = ""
	}
	cache, err := f.cache.of(c, nil)
	if err != nil {
		return err
	}
	_, stranger := executor.Stranger(os.Getenv)
	if cache, err = f.docker.cache(t, cache, !stranger && !f.cache.noPush); err != nil {
		return err
	}
	if cache != nil && cache.Repo == "" && len(f.tags) == 0 {
		return usageError{errors.New("--cache needs a place\n  hint: add --cache-repo HOST/PATH, or a name with -t")}
	}
	if err := writable("iidfile", f.iidfile); err != nil {
		return err
	}
	outputs, err := parseOutputs(f.outputs, t.out)
	if err != nil {
		return err
	}
	if err := f.holdsPlatforms(outputs); err != nil {
		return err
	}
	if contextDir == "" {
		return usageError{errors.New("the context has no name\n  hint: write . for this directory")}
	}
	for _, tag := range f.tags {
		if err := executor.CheckName(tag); err != nil {
			return usageError{fmt.Errorf("--tag: %w", err)}
		}
	}
	if f.push && len(f.tags) == 0 {
		return usageError{errors.New("--push needs a name\n  hint: add -t REGISTRY/NAME:TAG")}
	}
	var to engine
	if f.docker.load {
		if to, err = f.findEngine(ctx); err != nil {
			return err
		}
	}
	limit, err := maxStore()
	if err != nil {
		return err
	}
	here, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	view, err := f.show(ctx, t, here)
	if err != nil {
		return err
	}
	x, err := f.open(ctx, said(view), nil, nil)
	if err == nil {
		err = shut(ctx, x, limit, f.build(ctx, t, x, view, contextDir, cache, outputs, to))
	}
	return errors.Join(err, view.Close())
}

func (f *buildFlags) build(ctx context.Context, t terminal, x *executor.Executor, view progress.View, place string, cache *executor.Cache, outputs []executor.Output, to engine) error {
	r, err := f.request(ctx, t, x, place)
	if err != nil {
		return err
	}
	if f.docker.check {
		return lint(ctx, t, r)
	}
	r.Cache = cache
	if err := f.attest.set(&r.Attest); err != nil {
		return err
	}
	all, err := f.each(r, outputs)
	if err != nil {
		return err
	}
	if err := f.written(ctx, r.Context, all.requests); err != nil {
		return err
	}
	// When every output is to have its times set, the image itself gets them so.
	rewrite := f.reproducible || !f.push && len(outputs) > 0 && !slices.ContainsFunc(outputs, func(o executor.Output) bool { return !o.Rewrite })
	for i := range all.requests {
		all.requests[i].Format.Rewrite = rewrite
	}
	run := &run{x: x, term: t, view: view, flags: f.runFlags, outputs: all.outputs, joins: all.joins, quiet: toStdout(outputs) || f.docker.quiet}
	results, err := run.all(ctx, all.requests, all.graph)
	id := results[r.ID].Config.Digest
	if len(f.platforms) > 1 { // an index has no config
		id = results[r.ID].Manifest.Digest
	}
	if err == nil && f.docker.quiet {
		_, err = fmt.Fprintln(t.out, id)
	}
	if err == nil && f.docker.load {
		err = f.give(ctx, t, x, to)
	}
	if f.iidfile != "" && err == nil {
		err = files.Whole(f.iidfile, func(w io.Writer) error {
			_, err := io.WriteString(w, id.String())
			return err
		})
	}
	return err
}

// request reads what the flags name.
func (f *buildFlags) request(ctx context.Context, t terminal, x *executor.Executor, place string) (executor.Request, error) {
	r := executor.Request{
		ID: "build", Stage: f.target, Network: f.network, NoCache: f.noCache, Names: f.tags,
		Args: map[string]*string{}, Labels: map[string]string{}, Contexts: map[string]string{},
	}
	if len(f.tags) > 0 {
		r.ID = shortName(f.tags[0])
	}
	if len(f.platforms) > 0 {
		r.Platform = f.platforms[0]
	}
	from, in, err := f.place(t, place)
	if err != nil {
		return r, err
	}
	t.in = in
	if from.At == "" { // a Dockerfile alone has an empty context
		if err := f.readDockerfile(t.in, "", &r); err != nil {
			return r, err
		}
		err = f.rest(&r)
		return r, err
	}
	elsewhere := strings.Contains(from.At, "://")
	r.Context, err = x.OpenContext(ctx, from, t.in)
	if err != nil {
		return r, err
	}
	if fi, err := os.Stat(r.Context); err != nil || !fi.IsDir() {
		return r, &diag.Problem{Pos: diag.Pos{File: place}, What: "the context is not a directory", Hint: "name a directory, or an archive as tar://" + place}
	}
	contextDir := place // as messages name it
	if elsewhere {
		r.Attest.Source, contextDir = executor.Redacted(place), r.Context
		if f.file != "" && f.file != "-" && !filepath.IsAbs(f.file) {
			f.file = filepath.Join(r.Context, filepath.Clean("/"+f.file)) // of the context, as docker has it
		}
	}
	if err := f.readDockerfile(t.in, contextDir, &r); err != nil {
		return r, err
	}
	err = f.rest(&r)
	return r, err
}

// rest gives a request what flags say beside its context and Dockerfile.
func (f *buildFlags) rest(r *executor.Request) error {
	var err error
	if err := f.docker.set(r); err != nil {
		return err
	}
	for _, a := range f.args {
		name, value, ok := strings.Cut(a, "=")
		if name == "" {
			return usageError{fmt.Errorf("--build-arg %q has no name", a)}
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue // as docker: an unset variable sets nothing
			}
		}
		r.Args[name] = &value
	}
	for _, l := range f.labels {
		name, value, _ := strings.Cut(l, "=")
		if name == "" {
			return usageError{fmt.Errorf("--label %q has no name", l)}
		}
		r.Labels[name] = value
	}
	for _, c := range f.contexts {
		name, value, ok := strings.Cut(c, "=")
		if !ok || name == "" || value == "" {
			return usageError{fmt.Errorf("--build-context %q: write NAME=VALUE", c)}
		}
		if dir, ok := strings.CutPrefix(value, "oci-layout://"); ok {
			if value, err = absolute(dir); err != nil {
				return err
			}
			value = "oci-layout://" + value
		} else if !strings.Contains(value, "://") {
			if value, err = absolute(value); err != nil {
				return err
			}
		}
		r.Contexts[name] = value
	}
	for _, s := range f.secrets {
		secret, err := parseSecret(s)
		if err != nil {
			return err
		}
		r.Secrets = append(r.Secrets, secret)
	}
	for _, s := range f.ssh {
		a, err := parseSSH(s)
		if err != nil {
			return err
		}
		r.SSH = append(r.SSH, a)
	}
	return nil
}

func (f *buildFlags) readDockerfile(stdin io.Reader, contextDir string, r *executor.Request) error {
	if f.file == "-" {
		b, err := io.ReadAll(io.LimitReader(stdin, maxDockerfile+1))
		if err != nil {
			return fmt.Errorf("read the Dockerfile from standard input: %w", err)
		}
		if len(b) > maxDockerfile {
			return &diag.Problem{What: fmt.Sprintf("the Dockerfile has more than %d bytes", maxDockerfile)}
		}
		r.Dockerfile = executor.Text{Name: "Dockerfile", Data: b}
		return nil
	}
	file := f.file
	if file == "" {
		file = filepath.Join(contextDir, "Dockerfile")
	}
	var err error
	r.Dockerfile, r.Ignore, err = readDockerfile(file, file)
	if err != nil {
		return &diag.Problem{What: err.Error(), Hint: "write it, or name another with -f"}
	}
	return nil
}

func absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", p, err)
	}
	return abs, nil
}

// shortName is what log lines call an image: the last part of its name.
func shortName(ref string) string {
	name := ref[strings.LastIndexByte(ref, '/')+1:]
	if i := strings.IndexAny(name, ":@"); i > 0 {
		name = name[:i]
	}
	return name
}

// parseSecret reads id=ID[,src=FILE|,env=NAME], as docker build does.
func parseSecret(s string) (executor.Secret, error) {
	said, err := secretflag.Parse(s)
	if err != nil {
		return executor.Secret{}, usageError{fmt.Errorf("--secret %q: %w", s, err)}
	}
	out := executor.Secret{ID: said.ID, File: said.File, Env: said.Env}
	if out.Env == "" && out.File == "" {
		if _, set := os.LookupEnv(out.ID); set {
			out.Env = out.ID
		} else {
			out.File = out.ID
		}
	}
	if out.Env != "" {
		out.File = ""
		if _, set := os.LookupEnv(out.Env); !set {
			return out, &diag.Problem{What: fmt.Sprintf("secret %q: the variable %s is not set", out.ID, out.Env), Hint: "set it, or leave the secret out"}
		}
		return out, nil
	}
	if out.File, err = absolute(out.File); err != nil {
		return out, err
	}
	if _, err := os.Stat(out.File); errors.Is(err, fs.ErrNotExist) {
		return out, &diag.Problem{What: fmt.Sprintf("secret %q: %s does not exist", out.ID, out.File), Hint: "name a file that is there"}
	}
	return out, nil
}

// parseSSH reads default|ID[=SOCKET|KEY[,KEY]], as docker build does.
func parseSSH(s string) (executor.SSH, error) {
	id, paths, ok := strings.Cut(s, "=")
	out := executor.SSH{ID: id}
	if !ok || paths == "" {
		sock := os.Getenv("SSH_AUTH_SOCK")
		if sock == "" {
			return out, &diag.Problem{What: fmt.Sprintf("ssh %q needs an agent, and SSH_AUTH_SOCK is not set", id), Hint: "start ssh-agent, or name keys: --ssh " + id + "=KEY"}
		}
		out.Paths = []string{sock}
		return out, nil
	}
	for p := range strings.SplitSeq(paths, ",") {
		abs, err := absolute(p)
		if err != nil {
			return out, err
		}
		if _, err := os.Stat(abs); err != nil {
			return out, &diag.Problem{What: fmt.Sprintf("ssh %q: %v", id, err), Hint: "name a socket or private keys"}
		}
		out.Paths = append(out.Paths, abs)
	}
	return out, nil
}

// toStdout tells whether one of the outputs takes standard output.
func toStdout(outputs []executor.Output) bool {
	return slices.ContainsFunc(outputs, func(o executor.Output) bool { return o.Dest == "-" })
}

func parseOutputs(list []string, stdout io.Writer) ([]executor.Output, error) {
	var out []executor.Output
	for _, s := range list {
		o, err := executor.ParseOutput(s)
		if err != nil {
			return nil, err
		}
		if o.Dest == "-" && slices.ContainsFunc(out, func(o executor.Output) bool { return o.Dest == "-" }) {
			return nil, usageError{errors.New("two outputs go to standard output\n  hint: write one of them to a file")}
		}
		o.Stdout = stdout
		out = append(out, o)
	}
	return out, nil
}
