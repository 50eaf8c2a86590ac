package dropin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
)

// immutable is what registries say when a tag cannot be moved.
var immutable = []string{
	"The repository has enabled tag immutability",               // Artifact Registry
	"cannot be overwritten because the repository is immutable", // ECR, formerly
	"cannot be overwritten because the tag is immutable",        // ECR
}

// retry does something up to 1+more times, with 1, 2, 4 … seconds between.
func retry(ctx context.Context, log *logger, more int, what string, do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if err == nil || try >= more || ctx.Err() != nil {
			return err
		}
		wait := time.Second << min(try, 6)
		log.warnf("%s failed, trying again in %s: %v", what, wait, err)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// tolerate makes a tag that cannot be moved no error, if that is asked for.
func (p *pushFlags) tolerate(log *logger, err error) error {
	if err == nil || !p.ignoreImmutable {
		return err
	}
	for _, text := range immutable {
		if strings.Contains(err.Error(), text) {
			log.warnf("Ignoring an immutable tag: %v", err)
			return nil
		}
	}
	return err
}

// check asks for the permission to push to every destination.
func (p *pushFlags) check(ctx context.Context, x *executor.Executor) error {
	if p.skipCheck {
		return nil
	}
	for _, d := range p.destinations {
		if err := x.CheckPush(ctx, d); err != nil {
			return fmt.Errorf("checking push permission -- make sure you entered the correct tag name, and that you are authenticated correctly, and try again: %w", err)
		}
	}
	return nil
}

// checkNames finds mistakes in destinations.
func (p *pushFlags) checkNames() error {
	for _, d := range p.destinations {
		n, err := executor.ParseImageName(d)
		if err != nil {
			return err
		}
		if n.Digest != "" || n.Tag == "" {
			return fmt.Errorf("destination %q has a digest: nobody can choose that", d)
		}
	}
	if (p.nameDigest != "" || p.nameTagSum != "") && len(p.destinations) == 0 {
		return errors.New("you must provide --destination if setting ImageNameDigestFile")
	}
	return nil
}

// pushAll pushes an image, by digest first and then its tags.
func (p *pushFlags) pushAll(ctx context.Context, log *logger, x *executor.Executor, n *executor.Node, digest string) error {
	for _, d := range p.destinations {
		log.infof("Pushing image to %s", d)
	}
	err := retry(ctx, log, p.retry, "push", func() error { return x.Push(ctx, n) })
	if err == nil {
		err = retry(ctx, log, p.retry, "push", func() error {
			_, err := x.PutTags(ctx, n)
			return p.tolerate(log, err)
		})
	}
	if err != nil {
		return fmt.Errorf("failed to push to destination: %w", err)
	}
	for _, d := range p.destinations {
		repo, _, err := reference(d)
		if err != nil {
			return err
		}
		log.infof("Pushed %s@%s", repo, digest)
	}
	return p.writeImages(digest)
}

// noPushEnv is KANIKO_NO_PUSH, which beats the flag either way.
func noPushEnv(flag bool) (bool, error) {
	v, ok := os.LookupEnv("KANIKO_NO_PUSH")
	if !ok || v == "" {
		return flag, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("KANIKO_NO_PUSH=%q is neither true nor false", v)
	}
	return b, nil
}

// pushCommand pushes an image that was built before.
func (p Program) pushCommand() *cobra.Command {
	var c common
	var f pushFlags
	cmd := &cobra.Command{
		Use:   "push [flags] ARCHIVE",
		Short: "Push an image from an archive or an OCI layout directory",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return p.usage(cmd, fmt.Errorf("accepts 1 arg(s), received %d", len(args)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.fail("error pushing image", p.pushArchive(cmd.Context(), &c, &f, args[0]))
		},
	}
	c.registry.addPush(cmd.Flags())
	c.registry.addPull(cmd.Flags())
	c.addLog(cmd.Flags(), "v")
	f.add(cmd.Flags())
	return p.command(cmd)
}

func (p Program) pushArchive(ctx context.Context, c *common, f *pushFlags, path string) (err error) {
	log, err := newLogger(p, c.verbosity, c.logFormat, c.logTimestamp)
	if err != nil {
		return err
	}
	if len(f.destinations) == 0 {
		return errors.New("you must provide --destination")
	}
	if err := f.checkNames(); err != nil {
		return err
	}
	x, err := p.open(ctx, c, log, "", f.destinations, executor.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(ctx)) }()
	if err := f.check(ctx, x); err != nil {
		return err
	}
	var digest string
	err = retry(ctx, log, f.retry, "push", func() error {
		d, err := x.PushArchive(ctx, path, f.destinations)
		digest = d.Digest.String()
		return f.tolerate(log, err)
	})
	if err != nil {
		return err
	}
	log.infof("Pushed %s", digest)
	return errors.Join(f.writeDigests(ctx, p.Web, digest), f.writeImages(digest))
}
