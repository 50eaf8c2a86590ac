package dropin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kaniko-build/executor"
)

// warmSettings are the warmer's flags.
type warmSettings struct {
	common
	images, buildArgs              []string
	dockerfile, cacheDir, platform string
	force                          bool
	ttl                            time.Duration
}

// Warmer is the command warmer.
func (p Program) Warmer() *cobra.Command {
	s := &warmSettings{}
	c := &cobra.Command{
		Use:     "warmer",
		Short:   "Put base images into a directory, with the flags of kaniko's warmer",
		Long:    "Put base images into a directory that builds with executor --cache read them from. It\nfails when no image could be had.",
		Example: "  kaniko-build warmer --cache-dir /cache --image debian:12",
		RunE: func(c *cobra.Command, _ []string) error {
			err := p.warm(c.Context(), s)
			if err == nil {
				return nil
			}
			fmt.Fprintf(p.Out, "error warming cache: %v\n", err) // on standard output, as ever
			return &Failure{Code: 1, Err: err}
		},
	}
	s.add(c.Flags())
	return p.command(c)
}

func (s *warmSettings) add(f *pflag.FlagSet) {
	f.StringArrayVarP(&s.images, "image", "i", nil, "image to put down; may be repeated")
	f.StringVarP(&s.dockerfile, "dockerfile", "d", "", "Dockerfile whose base images to put down: a path or http(s) address")
	f.StringArrayVar(&s.buildArgs, "build-arg", nil, "set an argument for FROM, NAME=VALUE; may be repeated")
	f.StringVarP(&s.cacheDir, "cache-dir", "c", "/cache", "the directory; made if absent")
	f.BoolVarP(&s.force, "force", "f", false, "fetch images that are there, too")
	f.DurationVar(&s.ttl, "cache-ttl", 336*time.Hour, "accepted for kaniko's sake: an image stays until --force")
	for _, name := range []string{"custom-platform", "customPlatform"} {
		f.StringVar(&s.platform, name, "", "platform of the images, OS/ARCH[/VARIANT] (default: this machine's)")
	}
	s.registry.addPull(f)
	s.addLog(f, "v")
}

func (p Program) warm(ctx context.Context, s *warmSettings) (err error) {
	log, err := newLogger(p, s.verbosity, s.logFormat, s.logTimestamp)
	if err != nil {
		return err
	}
	if len(s.images) == 0 && s.dockerfile == "" {
		return errors.New("you must select at least one image to cache or a dockerfilepath to parse")
	}
	x, err := p.open(ctx, &s.common, log, "", nil, executor.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(ctx)) }()
	images := slices.Clone(s.images)
	if s.dockerfile != "" {
		more, err := s.bases(ctx, x)
		if err != nil {
			return err
		}
		images = append(images, more...)
	}
	if err := os.MkdirAll(s.cacheDir, 0o755); err != nil {
		return fmt.Errorf("make the cache directory: %w", err)
	}
	var failed []error
	for _, name := range images {
		d, had, err := x.Warm(ctx, name, s.platform, s.cacheDir, s.force)
		switch {
		case err != nil:
			log.warnf("Error while trying to warm image: %s: %v", name, err)
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		case had:
			log.infof("Image already in cache: %s@%s", name, d)
		default:
			log.infof("Retrieved %s@%s", name, d)
		}
	}
	if len(failed) == len(images) && len(images) > 0 {
		return errors.Join(failed...)
	}
	return nil
}

// bases are the images that a Dockerfile starts from.
func (s *warmSettings) bases(ctx context.Context, x *executor.Executor) ([]string, error) {
	text, _, err := (&settings{dockerfile: s.dockerfile}).findDockerfile(ctx, x, ".")
	if err != nil {
		return nil, err
	}
	r := executor.Request{ID: "warm", Dockerfile: text, Platform: s.platform, Args: map[string]*string{}}
	for _, a := range s.buildArgs {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			continue // a bare name is not filled in here
		}
		r.Args[name] = &value
	}
	refs, err := executor.References(r)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ref := range refs {
		if !ref.Unresolved && !slices.Contains(out, ref.Name) {
			out = append(out, ref.Name)
		}
	}
	return out, nil
}
