package dropin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/cmd/kaniko-build/internal/secretflag"
	"kaniko-build/executor"
)

// Executor is the command executor.
func (p Program) Executor() *cobra.Command {
	s := &settings{}
	c := &cobra.Command{
		Use:   "executor",
		Short: "Build one image, with the flags of kaniko's executor",
		Long: `Build one image and push it, with the flags, files and exit codes of kaniko's
executor, so that pipelines that call it go on as they are. A RUN that fails
gives its exit code; everything else that fails is 1.`,
		Example: "  kaniko-build executor --context . --destination registry.example/team/app:1",
		RunE: func(c *cobra.Command, _ []string) error {
			return p.fail("error building image", p.build(c, s))
		},
	}
	s.add(c.Flags())
	c.AddCommand(p.versionCommand(), p.loginCommand(), p.pushCommand())
	return p.command(c)
}

// unnamed is what kaniko calls an image that has no destination.
const unnamed = "unset-repo/unset-image-name"

// build is the executor's work, in kaniko's order: mistakes that can be seen
// early are seen before anything is fetched.
func (p Program) build(c *cobra.Command, s *settings) (err error) {
	ctx := c.Context()
	log, err := newLogger(p, s.verbosity, s.logFormat, s.logTimestamp)
	if err != nil {
		return err
	}
	for _, w := range append(warnings(c.Flags()), unknownEnv()...) {
		log.warnf("%s", w)
	}
	if err := s.complete(c.Flags().Changed, log); err != nil {
		return err
	}
	r, err := s.request(log)
	if err != nil {
		return err
	}
	if r.Cache, err = s.layerCache(); err != nil {
		return err
	}
	hosts := s.push.destinations
	if r.Cache != nil && !strings.HasPrefix(r.Cache.Repo, "oci:") {
		hosts = append(slices.Clone(hosts), r.Cache.Repo) // reached as a destination is
	}
	warmed := executor.Warmed{}
	if s.cache {
		warmed = executor.Warmed{Dir: s.cacheDir, TTL: s.cacheTTL}
	}
	x, err := p.open(ctx, &s.common, log, s.kanikoDir, hosts, executor.Options{
		Warmed: warmed, Retries: retries(s.downloadRetry, s.fsRetry),
		Runner: p.Runner(s.force), SnapshotMode: s.snapshotMode, IgnorePaths: s.ignored(c.Flags().Changed),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(ctx)) }()
	if r.Context, err = s.openContext(ctx, p.In, x); err != nil {
		return fmt.Errorf("error resolving source context: %w", err)
	}
	if r.Dockerfile, r.Ignore, err = s.findDockerfile(ctx, x, r.Context); err != nil {
		return fmt.Errorf("error resolving dockerfile path: %w", err)
	}
	if !s.noPush {
		if err := s.push.check(ctx, x); err != nil {
			return err
		}
	}
	return p.run(ctx, s, log, x, r)
}

// run builds the image and puts it where it is to go.
func (p Program) run(ctx context.Context, s *settings, log *logger, x *executor.Executor, r executor.Request) error {
	requests := []executor.Request{r}
	for i, stage := range s.targets[min(1, len(s.targets)):] { // these are built, and that is all
		more := r
		more.ID, more.Stage, more.Names = fmt.Sprintf("target-%d", i+2), stage, nil
		requests = append(requests, more)
	}
	nodes, err := x.Inspect(ctx, requests)
	if err != nil {
		return err
	}
	var digest string
	for i, n := range nodes {
		res, err := x.Build(ctx, n)
		if err != nil {
			return err
		}
		if i == 0 {
			digest = res.Manifest.Digest.String()
		}
	}
	for _, o := range s.outputs() {
		if _, err := x.Export(ctx, nodes[0], o); err != nil {
			return fmt.Errorf("write %s: %w", o.Dest, err)
		}
	}
	if s.noPush {
		log.infof("Skipping push to container registry due to --no-push flag")
	} else if err := s.push.pushAll(ctx, log, x, nodes[0], digest); err != nil {
		return err
	}
	return s.push.writeDigests(ctx, p.Web, digest)
}

// layerCache is where results of steps are kept, nil without a place: with
// --no-push, --no-push-cache and no --cache-repo there is none.
func (s *settings) layerCache() (_ *executor.Cache, err error) {
	repo := s.cacheRepo
	switch {
	case !s.cache || repo == "" && len(s.push.destinations) == 0:
		return nil, nil
	case s.cacheTTL <= 0:
		return nil, fmt.Errorf("--cache-ttl %s lets nothing count: leave --cache out", s.cacheTTL)
	case repo == "":
		if repo, err = executor.CacheRepo(s.push.destinations[0]); err != nil {
			return nil, err
		}
	}
	return &executor.Cache{Repo: repo, TTL: s.cacheTTL, Write: !s.noPushCache, Run: s.cacheRun, Copy: s.cacheCopy}, nil
}

func (s *settings) outputs() []executor.Output {
	var out []executor.Output
	if s.layoutPath != "" {
		out = append(out, executor.Output{Type: "oci", Dest: s.layoutPath, Dir: true, Alone: true})
	}
	if s.tarPath != "" {
		out = append(out, executor.Output{Type: "docker", Dest: s.tarPath})
	}
	return out
}

// complete adds what the environment says, and finds what does not go together.
func (s *settings) complete(given func(string) bool, log *logger) (err error) {
	if s.noPush, err = noPushEnv(s.noPush); err != nil {
		return err
	}
	if s.bucket != "" {
		if strings.Contains(s.bucket, "://") {
			s.context = s.bucket
		} else if !given("context") || s.context == "" || strings.Contains(s.context, "://") {
			s.context = "gs://" + s.bucket
		}
	}
	switch {
	case !s.noPush && len(s.push.destinations) == 0:
		return errors.New("you must provide --destination, or use --no-push")
	case s.cache && s.noPush && s.cacheRepo == "" && !s.noPushCache:
		return errors.New("if using cache with --no-push, specify cache repo with --cache-repo")
	case !slices.Contains([]string{"full", "redo", "time"}, s.snapshotMode):
		return fmt.Errorf("%s is not a valid snapshot mode: choose full, redo or time", s.snapshotMode)
	case !slices.Contains([]string{"", "docker", "oci"}, s.imageFormat):
		return fmt.Errorf("--image-format %q: choose docker or oci", s.imageFormat)
	case !slices.Contains([]string{"", "gzip", "zstd"}, s.compression):
		return fmt.Errorf("--compression %q: choose gzip or zstd", s.compression)
	case s.tarPath != "" && s.imageFormat == "oci":
		return errors.New("--tar-path writes Docker's format, which --image-format=oci is not")
	case s.tarPath != "" && s.compression == "zstd":
		return errors.New("--tar-path writes Docker's format, which has no zstd")
	}
	if err := s.push.checkNames(); err != nil {
		return err
	}
	for _, path := range []*string{&s.tarPath, &s.layoutPath, &s.push.digestFile, &s.push.nameDigest, &s.push.nameTagSum} {
		if *path != "" && !strings.HasPrefix(*path, "https://") {
			if *path, err = filepath.Abs(*path); err != nil {
				return err
			}
		}
	}
	if given("skip-unused-stages") {
		log.debugf("stages that the image does not need are never built")
	}
	return nil
}

// ignored are the paths that the image gets nothing at from a step. /var/run is
// among them only if that was asked for: kaniko's default loses files that people
// miss, and what a container has mounted there is in no image anyway.
func (s *settings) ignored(given func(string) bool) []string {
	out := slices.Clone(s.ignorePaths)
	if s.ignoreVarRun && (given("ignore-var-run") || given("whitelist-var-run")) {
		out = append(out, "/var/run")
	}
	return out
}

// unknownEnv says which switches of the second kaniko are set: none is needed.
func unknownEnv() []string {
	var out []string
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "FF_KANIKO_") {
			out = append(out, name+" does nothing here: there is one way to build, the one of BuildKit")
		}
	}
	slices.Sort(out)
	return out
}

// retries is how often a request to a registry is tried: as ever, or what the
// flags ask for if that is more.
func retries(flags ...int) int {
	if n := slices.Max(flags); n > 4 {
		return n
	}
	return 0
}

// open opens the executor.
func (p Program) open(ctx context.Context, c *common, log *logger, kanikoDir string, destinations []string, o executor.Options) (*executor.Executor, error) {
	var err error
	if o.State, err = p.stateDir(kanikoDir); err != nil {
		return nil, err
	}
	o.Passing = passing(o.State)
	if o.Registries, o.Others, err = c.registry.registries(destinations, log); err != nil {
		return nil, err
	}
	o.CredentialSources = c.registry.sources(log)
	if v := os.Getenv("SOURCE_DATE_EPOCH"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH=%q is no number of seconds", v)
		}
		o.Epoch = &n
	}
	if o.Runner == nil {
		o.Runner = p.Runner(false)
	}
	o.Getenv, o.Sink, o.PrivatePlain = os.Getenv, log.event, true
	return executor.Open(ctx, o)
}

// request is the build as far as the flags say it.
func (s *settings) request(log *logger) (executor.Request, error) {
	r := executor.Request{
		ID: "build", Platform: s.platform, NoCache: !s.cache, Names: s.push.destinations, Ahead: !s.noPush,
		Args: map[string]*string{}, Labels: map[string]string{},
	}
	if len(s.targets) > 0 {
		r.Stage = s.targets[0]
	}
	if len(r.Names) == 0 {
		r.Names = []string{unnamed}
	}
	secrets := map[string]bool{}
	for _, text := range s.secrets {
		secret, err := parseSecret(text)
		if err != nil {
			return r, err
		}
		if secrets[secret.ID] {
			return r, fmt.Errorf("--secret: the id %q is there twice", secret.ID)
		}
		secrets[secret.ID] = true
		r.Secrets = append(r.Secrets, secret)
	}
	for _, a := range s.buildArgs {
		name, value, ok := strings.Cut(a, "=")
		if name == "" {
			return r, fmt.Errorf("--build-arg %q has no name", a)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				log.warnf("--build-arg %s: the variable is not set, so the argument is empty", name)
			}
		}
		r.Args[name] = &value
	}
	var err error
	if r.Labels, err = pairs("label", s.labels); err != nil {
		return r, err
	}
	if r.Format.Annotations, err = pairs("annotation", s.annotations); err != nil {
		return r, err
	}
	r.Format.Docker, r.Format.Inherit = s.imageFormat == "docker", s.imageFormat == "" && s.tarPath == ""
	if s.tarPath != "" {
		r.Format.Docker = true
	}
	if s.compression != "" {
		r.Format.Compression.Type = executor.Algorithm(s.compression)
	}
	r.Format.Single = s.singleSnapshot
	r.Format.Compression.Level = max(0, s.compressionLevel)
	if s.reproducible {
		epoch := int64(0)
		r.Format.Rewrite, r.Format.Epoch = true, &epoch
	}
	return r, r.Format.Check()
}

// parseSecret reads id=ID[,src=FILE|,source=FILE][,env=NAME][,type=file|env].
func parseSecret(text string) (executor.Secret, error) {
	said, err := secretflag.Parse(text)
	if err != nil {
		return executor.Secret{}, fmt.Errorf("--secret %q: %w", text, err)
	}
	out := executor.Secret{ID: said.ID, File: said.File, Env: said.Env}
	if out.Env == "" && out.File == "" {
		if _, set := os.LookupEnv(out.ID); set && said.Type != "file" {
			out.Env = out.ID
		} else {
			out.File = out.ID
		}
	}
	if out.Env != "" {
		out.File = ""
		if _, set := os.LookupEnv(out.Env); !set {
			return out, fmt.Errorf("--secret %q: the variable %s is not set", text, out.Env)
		}
		return out, nil
	}
	abs, err := filepath.Abs(out.File)
	if err != nil {
		return out, err
	}
	if _, err := os.Stat(abs); err != nil {
		return out, fmt.Errorf("--secret %q: %w", text, err)
	}
	out.File = abs
	return out, nil
}

// openContext makes the context's directory.
func (s *settings) openContext(ctx context.Context, stdin io.Reader, x *executor.Executor) (string, error) {
	if s.context == "tar://stdin" && isTerminal(stdin) {
		return "", errors.New("no data found on standard input: pipe the context's archive into it")
	}
	git := executor.GitFrom(os.Getenv)
	git.Branch, git.Submodules, git.AnyCertificate = s.git.branch, s.git.submodules, s.git.skipTLS
	git.History = s.git.depth
	if git.History == 0 {
		git.History = executor.WholeHistory
	}
	return x.OpenContext(ctx, executor.Place{At: s.context, Sub: s.subPath, Git: git}, stdin)
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

const maxDockerfile = 16 << 20 // bytes

// findDockerfile reads the Dockerfile: from the web, from here, or from the
// context, in this order, with the ignore file beside it.
func (s *settings) findDockerfile(ctx context.Context, x *executor.Executor, dir string) (executor.Text, *executor.Text, error) {
	if strings.HasPrefix(s.dockerfile, "http://") || strings.HasPrefix(s.dockerfile, "https://") {
		b, err := x.Fetch(ctx, s.dockerfile, maxDockerfile)
		return executor.Text{Name: "Dockerfile", Data: b}, nil, err
	}
	name := s.dockerfile
	if st, err := os.Stat(name); err != nil || !st.Mode().IsRegular() {
		if name = filepath.Join(dir, s.dockerfile); filepath.IsAbs(s.dockerfile) {
			name = s.dockerfile
		}
	}
	text, err := readSmall(name)
	if err != nil {
		return text, nil, fmt.Errorf("please provide a valid path to a Dockerfile within the build context with --dockerfile: %w", err)
	}
	text.Name = s.dockerfile
	ignore, err := readSmall(name + ".dockerignore")
	if errors.Is(err, os.ErrNotExist) {
		return text, nil, nil
	}
	ignore.Name = s.dockerfile + ".dockerignore"
	return text, &ignore, err
}

func readSmall(name string) (executor.Text, error) {
	b, err := files.Read(name, maxDockerfile)
	var kind *files.KindError
	var large *files.SizeError
	if errors.As(err, &kind) || errors.As(err, &large) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return executor.Text{Name: name, Data: b}, err
}
