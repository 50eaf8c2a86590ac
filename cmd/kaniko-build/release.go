package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
)

// When tags are put.
const (
	together = "together" // all, when every image is there
	oneByOne = "each"     // those of an image, when it is there
)

// releaseFlags say when and how tags are put.
type releaseFlags struct {
	publish string
	exists  string
	hosts   map[string]string // what the manifest says instead of exists, by registry
}

func (f *releaseFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.publish, "publish", together, "when --push puts tags: together (all or none, when every image is there) or each (as images are done)")
	fl.StringVar(&f.exists, "on-tag-exists", "", "what becomes of a tag that stands for another image: overwrite, skip or fail (default overwrite)")
}

// check finds values that are none.
func (f *releaseFlags) check() error {
	if !slices.Contains([]string{together, oneByOne}, f.publish) {
		return usageError{fmt.Errorf("--publish %q: write together or each", f.publish)}
	}
	if !slices.Contains([]string{"", string(executor.TagOverwrite), string(executor.TagSkip), string(executor.TagFail)}, f.exists) {
		return usageError{fmt.Errorf("--on-tag-exists %q: write overwrite, skip or fail", f.exists)}
	}
	return nil
}

// rule is what becomes of a tag that exists.
func (f *releaseFlags) rule(name string) executor.TagRule {
	if n, err := executor.ParseImageName(name); f.exists == "" && err == nil {
		return executor.TagRule(f.hosts[n.Host])
	}
	return executor.TagRule(f.exists)
}

// release puts the tags of images, parents first.
func (r *run) release(ctx context.Context, all ...made) error {
	var images []executor.Published
	for _, m := range all {
		if f := r.found[m.id]; f != nil {
			if len(f.Names) > 0 {
				images = append(images, f)
			}
		} else if !r.private[m.id] {
			images = append(images, m.image)
		}
	}
	done, err := r.x.Release(ctx, images, r.flags.release.rule)
	for _, note := range done.Notes {
		r.tell(progress.Note, "", note)
	}
	for _, name := range done.Kept {
		r.tell(progress.Note, "", name+" exists and stays as it is")
	}
	return err
}
