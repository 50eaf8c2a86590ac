package dropin

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"kaniko-build/executor"
)

// common are the flags that executor, warmer and push share.
type common struct {
	verbosity, logFormat string
	logTimestamp         bool

	registry registryFlags
}

// registryFlags say how registries are reached.
type registryFlags struct {
	insecure, insecurePull           bool
	skipTLS, skipTLSPull             bool
	insecureHosts, skipTLSHosts      []string
	certificates, clientCertificates []string // HOST=FILE, HOST=CERT,KEY
	maps                             []string // A=B[;C=D]
	mirrors                          []string
	noFallback                       bool
	credentialHelpers                []string
}

func (c *common) addLog(f *pflag.FlagSet, shorthand string) {
	f.StringVarP(&c.verbosity, "verbosity", shorthand, "info", "log level: trace, debug, info, warn, error, fatal or panic")
	f.StringVar(&c.logFormat, "log-format", "color", "text, color or json")
	f.BoolVar(&c.logTimestamp, "log-timestamp", false, "show the time in text and color logs")
}

// addPull adds the flags of executor and warmer.
func (r *registryFlags) addPull(f *pflag.FlagSet) {
	f.BoolVar(&r.insecurePull, "insecure-pull", false, "plain http is fine when pulling")
	f.BoolVar(&r.skipTLSPull, "skip-tls-verify-pull", false, "any certificate is fine when pulling")
	f.StringArrayVar(&r.insecureHosts, "insecure-registry", nil, "host that plain http is fine for; may be repeated")
	f.StringArrayVar(&r.skipTLSHosts, "skip-tls-verify-registry", nil, "host that any certificate is fine for; may be repeated")
	f.StringArrayVar(&r.certificates, "registry-certificate", nil, "certificate authority of a registry, HOST=FILE; may be repeated")
	f.StringArrayVar(&r.clientCertificates, "registry-client-cert", nil, "client certificate for a registry, HOST=CERT,KEY; may be repeated")
	f.StringArrayVar(&r.maps, "registry-map", nil, "pull from another registry first, HOST=OTHER[/PREFIX][;HOST=OTHER]; may be repeated")
	f.StringArrayVar(&r.mirrors, "registry-mirror", nil, "mirror of Docker Hub; may be repeated")
	f.BoolVar(&r.noFallback, "skip-default-registry-fallback", false, "fail when no mirror has an image")
	f.StringArrayVar(&r.credentialHelpers, "credential-helpers", nil, "where credentials are looked for beside the docker config: env, google, ecr, acr, gitlab; may be repeated")
}

// addPush adds those that only matter when pushing.
func (r *registryFlags) addPush(f *pflag.FlagSet) {
	f.BoolVar(&r.insecure, "insecure", false, "plain http is fine when pushing")
	f.BoolVar(&r.skipTLS, "skip-tls-verify", false, "any certificate is fine, for all registries")
}

// pushFlags are those of executor and push about destinations and what is
// written about them.
type pushFlags struct {
	destinations           []string
	skipCheck              bool
	retry                  int
	ignoreImmutable        bool
	digestFile             string
	nameDigest, nameTagSum string // files
}

func (p *pushFlags) add(f *pflag.FlagSet) {
	f.StringArrayVarP(&p.destinations, "destination", "d", nil, "where to push to, REGISTRY/NAME:TAG; may be repeated")
	f.BoolVar(&p.skipCheck, "skip-push-permission-check", false, "do not ask for permission to push before the build")
	f.IntVar(&p.retry, "push-retry", 0, "times to try a failed push again")
	f.BoolVar(&p.ignoreImmutable, "push-ignore-immutable-tag-errors", false, "a tag that cannot be moved is no error")
	f.StringVar(&p.digestFile, "digest-file", "", "write the image's digest to a file or https:// address")
	f.StringVar(&p.nameDigest, "image-name-with-digest-file", "", "write NAME@DIGEST of each destination to a file or https:// address")
	f.StringVar(&p.nameTagSum, "image-name-tag-with-digest-file", "", "write NAME:TAG@DIGEST of each destination to a file or https:// address")
}

// settings are the executor's flags.
type settings struct {
	common
	push pushFlags

	dockerfile, context, subPath, bucket string
	git                                  gitValue
	buildArgs, labels, secrets           []string
	annotations                          []string
	targets                              []string
	platform                             string
	kanikoDir                            string

	noPush                 bool
	tarPath, layoutPath    string
	imageFormat            string
	compression            string
	compressionLevel       int
	reproducible           bool
	downloadRetry, fsRetry int

	snapshotMode            string
	singleSnapshot, force   bool
	ignorePaths             []string
	ignoreVarRun            bool
	cache                   bool
	cacheRepo, cacheDir     string
	cacheTTL                time.Duration
	cacheCopy, cacheRun     bool
	noPushCache, compressed bool
}

// nothing are flags that are accepted and change nothing here, with the reason.
// Those without one are as kaniko's users expect.
var nothing = []struct{ name, kind, why string }{
	{"use-new-run", "bool", "changes are found exactly and quickly without it"},
	{"force-build-metadata", "bool", ""},
	{"skip-unused-stages", "bool", ""},
	{"cleanup", "bool", ""}, // each build leaves the file system as it was
	{"pre-cleanup", "bool", "a build does not see the container's own files"},
	{"preserve-context", "bool", "a build leaves the container's files as they are"},
	{"materialize", "bool", "the file system of an image that is known is not unpacked"},
	{"dryrun", "bool", "the image is built and pushed as ever; --no-push builds only"},
	{"azure-container-registry-config", "string", ""},
}

// hiddenFlags are not in the help: other names of flags, and what is only
// there for old scripts.
var hiddenFlags = []string{
	"bucket", "snapshotMode", "customPlatform", "tarPath", "whitelist-var-run", "force-build-metadata", "azure-container-registry-config",
	"use-new-run", "skip-unused-stages", "pre-cleanup", "preserve-context", "materialize", "dryrun", "cleanup",
}

func (s *settings) add(f *pflag.FlagSet) {
	f.StringVarP(&s.dockerfile, "dockerfile", "f", "Dockerfile", "the Dockerfile: a path here or in the context, or an http(s) address")
	f.StringVarP(&s.context, "context", "c", "/workspace/", "directory, dir://, tar://FILE, tar://stdin, gs://, s3://, https:// or git:// of the build context")
	f.StringVar(&s.subPath, "context-sub-path", "", "directory in the context that is the context itself")
	f.StringVarP(&s.bucket, "bucket", "b", "", "bucket of Google Cloud Storage with the context, NAME[/OBJECT]")
	f.Var(&s.git, "git", "branch=, single-branch=, recurse-submodules=, depth=, insecure-skip-tls= of a git context; may be repeated")
	f.StringArrayVar(&s.buildArgs, "build-arg", nil, "set a build argument, NAME=VALUE; NAME alone takes it from the environment; may be repeated")
	f.StringSliceVar(&s.targets, "target", nil, "stage to build (default: the last)")
	for _, name := range []string{"custom-platform", "customPlatform"} {
		f.StringVar(&s.platform, name, "", "platform of the image, OS/ARCH[/VARIANT] (default: this machine's)")
	}
	f.StringArrayVar(&s.secrets, "secret", nil, "grant a secret, id=ID[,src=FILE][,env=NAME][,type=file|env]; may be repeated")
	f.StringArrayVar(&s.labels, "label", nil, "set a label, NAME=VALUE; may be repeated")
	f.StringArrayVar(&s.annotations, "annotation", nil, "set an annotation of the manifest, NAME=VALUE; may be repeated")
	f.StringVar(&s.kanikoDir, "kaniko-dir", "", "directory for what the build keeps")

	s.push.add(f)
	f.BoolVar(&s.noPush, "no-push", false, "do not push the image")
	for _, name := range []string{"tar-path", "tarPath"} {
		f.StringVar(&s.tarPath, name, "", "write the image as an archive for docker load")
	}
	f.StringVar(&s.layoutPath, "oci-layout-path", "", "write the image as an OCI layout directory")
	f.StringVar(&s.imageFormat, "image-format", "", "docker or oci (default: that of the base image)")
	f.StringVar(&s.compression, "compression", "", "of new layers: gzip or zstd (default gzip)")
	f.IntVar(&s.compressionLevel, "compression-level", -1, "of new layers (default: a fast one)")
	f.BoolVar(&s.reproducible, "reproducible", false, "set times in the image to SOURCE_DATE_EPOCH, else 1970")

	for _, name := range []string{"snapshot-mode", "snapshotMode"} {
		f.StringVar(&s.snapshotMode, name, "full", "how changes are found: full, redo or time")
	}
	f.BoolVar(&s.singleSnapshot, "single-snapshot", false, "one layer for all that a stage changes")
	f.StringArrayVar(&s.ignorePaths, "ignore-path", nil, "path of which no step has anything in the image; may be repeated")
	for _, name := range []string{"ignore-var-run", "whitelist-var-run"} {
		f.BoolVar(&s.ignoreVarRun, name, true, "leave /var/run out, if given")
	}
	f.BoolVar(&s.force, "force", false, "build in the root of what does not look like a container, too")

	f.BoolVar(&s.cache, "cache", false, "use what earlier builds have left in the cache")
	f.StringVar(&s.cacheRepo, "cache-repo", "", "repository for layers of the cache, or oci:DIR (default: cache below the first destination)")
	f.StringVar(&s.cacheDir, "cache-dir", "/cache", "directory of warmed base images")
	f.DurationVar(&s.cacheTTL, "cache-ttl", 336*time.Hour, "how long something in the cache is good")
	f.BoolVar(&s.cacheCopy, "cache-copy-layers", false, "cache COPY and ADD too")
	f.BoolVar(&s.cacheRun, "cache-run-layers", true, "cache RUN and WORKDIR")
	f.BoolVar(&s.noPushCache, "no-push-cache", false, "read the cache, do not write it")
	f.BoolVar(&s.compressed, "compressed-caching", true, "accepted for kaniko's sake: layers are never kept in memory")

	s.registry.addPull(f)
	s.registry.addPush(f)
	f.IntVar(&s.downloadRetry, "image-download-retry", 0, "times to try again to fetch a base image's manifest")
	f.IntVar(&s.fsRetry, "image-fs-extract-retry", 0, "times to try again to fetch a base image's files")
	s.addLog(f, "v")

	for _, n := range nothing {
		switch n.kind {
		case "bool":
			f.Bool(n.name, false, "accepted for kaniko's sake")
		default:
			f.String(n.name, "", "accepted for kaniko's sake")
		}
	}
	for _, name := range hiddenFlags {
		f.Lookup(name).Hidden = true
	}
}

// warnings says which of the given flags do nothing.
func warnings(f *pflag.FlagSet) []string {
	var out []string
	for _, n := range nothing {
		if fl := f.Lookup(n.name); n.why != "" && fl.Changed && fl.Value.String() != "false" {
			out = append(out, fmt.Sprintf("--%s does nothing here: %s", n.name, n.why))
		}
	}
	return out
}

// gitValue is --git: pairs, one a flag or with commas between them.
type gitValue struct {
	branch     string
	submodules bool
	skipTLS    bool
	depth      int
	given      []string
}

func (g *gitValue) String() string { return strings.Join(g.given, ",") }
func (g *gitValue) Type() string   { return "name=value" }

func (g *gitValue) Set(s string) error {
	for pair := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=VALUE", pair)
		}
		var err error
		switch k {
		case "branch":
			g.branch = v
		case "single-branch":
			_, err = strconv.ParseBool(v) // no other branch is ever fetched
		case "recurse-submodules":
			g.submodules, err = strconv.ParseBool(v)
		case "insecure-skip-tls":
			g.skipTLS, err = strconv.ParseBool(v)
		case "depth":
			g.depth, err = strconv.Atoi(v)
			if err == nil && g.depth < 0 {
				err = errors.New("it is negative")
			}
		default:
			return fmt.Errorf("nothing is known about %q; choose branch, single-branch, recurse-submodules, insecure-skip-tls or depth", k)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", pair, err)
		}
		g.given = append(g.given, pair)
	}
	return nil
}

// pairs reads NAME=VALUE flags; a later one wins.
func pairs(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--%s %q: write NAME=VALUE", flag, s)
		}
		out[k] = v
	}
	return out, nil
}

// sources are those of credentials: all of them unless the flag names some, and
// none if it names the empty one.
func (r *registryFlags) sources(log *logger) []string {
	if r.credentialHelpers == nil {
		return nil
	}
	out := []string{}
	for _, name := range r.credentialHelpers {
		if name != "" && !slices.Contains(executor.CredentialSources(), name) {
			log.warnf("--credential-helpers: nothing is known about %q", name)
		} else if name != "" {
			out = append(out, name)
		}
	}
	return out
}
