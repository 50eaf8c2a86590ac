package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
)

// cacheFlags are kaniko's flags for caches outside the machine.
type cacheFlags struct {
	on        bool
	repo      string
	ttl       time.Duration
	run, copy bool
	noPush    bool
}

func (f *cacheFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.BoolVar(&f.on, "cache", false, "look results of steps up in a cache outside the machine, and keep them there")
	fl.StringVar(&f.repo, "cache-repo", "", "the cache, HOST/PATH or oci:PATH; turns --cache on (default: the image's repository, with /cache)")
	fl.DurationVar(&f.ttl, "cache-ttl", 0, "how old results of the cache may be (default 336h)")
	fl.BoolVar(&f.run, "cache-run-layers", true, "use the cache for RUN and WORKDIR")
	fl.BoolVar(&f.copy, "cache-copy-layers", true, "use the cache for COPY and ADD")
	fl.BoolVar(&f.noPush, "no-push-cache", false, "only read the cache (default: when a CI builds a pull request or a fork's merge request)")
}

// of is the cache of an image for which the manifest has base, nil without one.
func (f *cacheFlags) of(c *cobra.Command, base *schema.Cache) (*executor.Cache, error) {
	set := func(name string) bool { return c.Flags().Changed(name) }
	if set("cache-ttl") && f.ttl <= 0 {
		return nil, usageError{fmt.Errorf("--cache-ttl %s lets nothing count\n  hint: write a time such as 72h, or --cache=false", f.ttl)}
	}
	out := executor.Cache{Run: true, Copy: true}
	write := schema.WriteAuto
	switch {
	case set("cache") && !f.on:
		return nil, nil
	case base != nil:
		out = executor.Cache{Repo: base.Repo, From: base.From, TTL: base.TTL, Run: base.Run, Copy: base.Copy}
		write = base.Write
	case !f.on && !set("cache-repo"):
		return nil, nil
	}
	if set("cache-repo") {
		out.Repo = f.repo
	}
	if set("cache-ttl") {
		out.TTL = f.ttl
	}
	if set("cache-run-layers") {
		out.Run = f.run
	}
	if set("cache-copy-layers") {
		out.Copy = f.copy
	}
	switch {
	case set("no-push-cache"):
		out.Write = !f.noPush
	case write == schema.WriteAuto:
		_, stranger := executor.Stranger(os.Getenv)
		out.Write = !stranger
	default:
		out.Write = write == schema.WriteAlways
	}
	return &out, nil
}

// set gives the requests for nodes of a plan their caches.
func (f *cacheFlags) set(c *cobra.Command, w *workspace, p *plan.Plan, requests []executor.Request) (err error) {
	for i := range requests {
		t := p.Node(graph.ID(requests[i].ID)).Target
		if requests[i].Cache, err = f.of(c, w.cacheOf(t)); err != nil {
			return err
		}
		if cache := requests[i].Cache; cache != nil && cache.Repo == "" && len(t.Refs) == 0 { // its names come with its input digest
			repository, _, _ := strings.Cut(t.InputRefs[0].Text, "${")
			cache.Repo = repository[:strings.LastIndexByte(repository, ':')] + "/cache"
		}
	}
	return nil
}

// cacheOf is the cache of a target, its paths made real.
func (w *workspace) cacheOf(t *schema.Target) *schema.Cache {
	if t.Cache == nil {
		return nil
	}
	real := func(place string) string {
		if p, ok := strings.CutPrefix(place, "oci:"); ok {
			return "oci:" + w.path(p)
		}
		return place
	}
	out := *t.Cache
	out.Repo, out.From = real(out.Repo), nil
	for _, p := range t.Cache.From {
		out.From = append(out.From, real(p))
	}
	return &out
}
