package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
)

// thingJSON is one thing of the store, in the output of du and prune.
type thingJSON struct {
	Kind  executor.ThingKind `json:"kind"`
	Name  string             `json:"name"`
	Path  string             `json:"path"`  // below the store
	Bytes int64              `json:"bytes"` // on disk
	Used  time.Time          `json:"used"`  // it, or something that needs it
	By    []string           `json:"referredToBy,omitempty"`
	Held  bool               `json:"held"` // by a process that runs, or by a named image
	Goes  bool               `json:"goes,omitempty"`
	Why   string             `json:"why"`
}

func newThingJSON(v executor.Verdict, goes bool) thingJSON {
	return thingJSON{Kind: v.Kind, Name: v.Name, Path: v.Path, Bytes: v.Bytes, Used: v.Last.UTC(), By: v.By, Held: v.Held, Goes: goes, Why: v.Why}
}

func newDu(t terminal) *cobra.Command {
	verbose, output := false, "table"
	c := &cobra.Command{
		Use:   "du",
		Short: "Show what the store holds, how large it is and when it was used",
		Long: `Show what the store holds, by kind: how many things, what they take on disk, when
they were used, and what prune --all would give back if no named image went.

` + kindsText,
		Example: "  kaniko-build du\n  kaniko-build du --verbose\n  kaniko-build du -o json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withStore(c.Context(), runFlags{}, func(ctx context.Context, x *executor.Executor) error {
				list, err := x.Judge(ctx, executor.PrunePolicy{}, false)
				if err != nil {
					return err
				}
				switch output {
				case "json":
					var doc []thingJSON
					for _, v := range list {
						doc = append(doc, newThingJSON(v, false))
					}
					return writeJSON(t.out, map[string]any{"things": doc})
				case "table":
					return duTable(t.out, list, verbose)
				}
				return usageError{fmt.Errorf("no output %q: choose table or json", output)}
			})
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "list every thing, with what refers to it")
	c.Flags().StringVarP(&output, "output", "o", output, "table or json")
	return c
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func duTable(w io.Writer, list []executor.Verdict, verbose bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if verbose {
		fmt.Fprintln(tw, "KIND\tNAME\tSIZE\tUSED\tREFERRED TO BY")
		for _, v := range list {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", v.Kind, printable(v.Name), size(max(0, v.Bytes)), moment(v.Last), printable(strings.Join(v.By, ", ")))
		}
		fmt.Fprintln(tw)
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	type sum struct {
		count        int
		bytes, free  int64
		first, final time.Time
	}
	var all sum
	sums := map[executor.ThingKind]*sum{}
	for _, v := range list {
		s := sums[v.Kind]
		if s == nil {
			s = &sum{first: v.Last, final: v.Last}
			sums[v.Kind] = s
		}
		for _, s := range []*sum{s, &all} {
			s.count++
			s.bytes += max(0, v.Bytes)
			if !v.Held && v.Kind != "images" {
				s.free += max(0, v.Bytes)
			}
		}
		if v.Last.Before(s.first) {
			s.first = v.Last
		}
		if v.Last.After(s.final) {
			s.final = v.Last
		}
	}
	fmt.Fprintln(tw, "KIND\tCOUNT\tSIZE\tRECLAIMABLE\tOLDEST USE\tNEWEST USE")
	for _, k := range executor.ThingKinds() {
		if s := sums[k]; s != nil {
			fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\n", k, s.count, size(s.bytes), size(s.free), moment(s.first), moment(s.final))
		}
	}
	fmt.Fprintf(tw, "total\t%d\t%s\t%s\n", all.count, size(all.bytes), size(all.free))
	return tw.Flush()
}

func moment(t time.Time) string { return t.Local().Format(time.DateTime) }

// defaultKeepFor is the rule of a prune without any.
const defaultKeepFor = 14 * 24 * time.Hour

type pruneFlags struct {
	keepFor, olderThan         time.Duration
	maxSize, maxCaches, maxOne string
	kinds                      []string
	all, dryRun, verbose       bool
	output                     string
}

func newPrune(t terminal) *cobra.Command {
	f := &pruneFlags{output: "table"}
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove from the store what was not used for long, or what is too much",
		Long: `Remove from the store what was not used for two weeks, or what the flags say. A
thing goes when one of the rules takes it; --kind limits them to some kinds. What
a process that runs has used stays, and so does all that a named image consists
of, unless its name goes too. Builds may run meanwhile. du --help tells what the
kinds are.

Sizes are bytes on disk, with a unit or without: 500MB, 20GB, 1.5GiB. With the
variable KANIKO_BUILD_MAX_STORE=20GB apply and build do the same as --max-size
after themselves, sparing what they have used.`,
		Example: `  kaniko-build prune --dry-run
  kaniko-build prune --keep-for 336h --max-size 20GB
  kaniko-build prune --kind caches --max-cache-size 5GB
  kaniko-build prune --all --kind layers,keys,variants,blobs`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c, t) },
	}
	fl := c.Flags()
	fl.DurationVar(&f.keepFor, "keep-for", 0, "remove what was not used for so long (336h when there is no other rule)")
	fl.DurationVar(&f.olderThan, "older-than", 0, "the same as --keep-for")
	fl.StringVar(&f.maxSize, "max-size", "", "remove what was used longest ago until the store takes no more than this")
	fl.StringVar(&f.maxCaches, "max-cache-size", "", "the same for all cache mounts together")
	fl.StringVar(&f.maxOne, "max-cache-each", "", "remove a cache mount that is larger than this")
	fl.StringSliceVar(&f.kinds, "kind", nil, "look at these kinds only: "+strings.Join(kindNames(), ", "))
	fl.BoolVar(&f.all, "all", false, "remove all that nothing uses now, named images too")
	fl.BoolVar(&f.dryRun, "dry-run", false, "only show what would go")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "list every thing")
	fl.StringVarP(&f.output, "output", "o", f.output, "table or json")
	return c
}

// kindsText says what the kinds are.
const kindsText = `Kinds:
  images    names of images
  bases     what registries said of base images
  keys      what steps made, by what they were made of
  variants  layers in another compression
  blobs     layers and configs, as registries have them
  layers    layers unpacked, to build upon
  indexes   names of files in layers, for copies onto a base that is not unpacked
  caches    RUN --mount=type=cache
  files     hashes of files of contexts
  fetched   what ADD and contexts fetched from elsewhere
  past      what earlier builds were made of, to tell what changed
  releases  pushes that were not finished
  temp      what is being made`

func kindNames() []string {
	var out []string
	for _, k := range executor.ThingKinds() {
		if k != "temp" { // swept by every run
			out = append(out, string(k))
		}
	}
	return out
}

func (f *pruneFlags) policy(c *cobra.Command) (executor.PrunePolicy, error) {
	set := func(name string) bool { return c.Flags().Changed(name) }
	if set("keep-for") && set("older-than") {
		return executor.PrunePolicy{}, usageError{errors.New("--keep-for and --older-than say the same\n  hint: leave one of both out")}
	}
	for flag, d := range map[string]time.Duration{"keep-for": f.keepFor, "older-than": f.olderThan} {
		if set(flag) && d <= 0 {
			return executor.PrunePolicy{}, usageError{fmt.Errorf("--%s %s spares nothing\n  hint: write a time such as 336h, or --all", flag, d)}
		}
	}
	p := executor.PrunePolicy{KeepFor: max(f.keepFor, f.olderThan), All: f.all}
	for flag, to := range map[string]*int64{"max-size": &p.MaxSize, "max-cache-size": &p.MaxCaches, "max-cache-each": &p.MaxEachCache} {
		v := c.Flags().Lookup(flag).Value.String()
		if v == "" {
			continue
		}
		n, err := parseSize(v)
		if err != nil || n == 0 {
			return p, usageError{fmt.Errorf("--%s %q is no size\n  hint: write a number of bytes, or one with a unit, as 500MB, 20GB or 1.5GiB", flag, v)}
		}
		*to = n
	}
	for _, k := range f.kinds {
		if !slices.Contains(kindNames(), k) {
			return p, usageError{fmt.Errorf("no kind %q\n  hint: choose of %s", k, strings.Join(kindNames(), ", "))}
		}
		p.Kinds = append(p.Kinds, executor.ThingKind(k))
	}
	if p.KeepFor == 0 && p.MaxSize == 0 && p.MaxCaches == 0 && p.MaxEachCache == 0 && !p.All {
		p.KeepFor = defaultKeepFor
	}
	return p, nil
}

func (f *pruneFlags) run(c *cobra.Command, t terminal) error {
	p, err := f.policy(c)
	if err != nil {
		return err
	}
	if f.output != "table" && f.output != "json" {
		return usageError{fmt.Errorf("no output %q: choose table or json", f.output)}
	}
	return withStore(c.Context(), runFlags{}, func(ctx context.Context, x *executor.Executor) error {
		list, err := x.Judge(ctx, p, false)
		if err != nil {
			return err
		}
		goes := make([]bool, len(list))
		for i, v := range list {
			goes[i] = v.Goes
		}
		if !f.dryRun {
			if goes, err = x.Prune(ctx, list, false); err != nil {
				return err
			}
		}
		for i := range list {
			if list[i].Goes && !goes[i] {
				list[i].Why, list[i].Held = "used a moment ago", true
			}
		}
		if f.output == "json" {
			var doc []thingJSON
			for i, v := range list {
				doc = append(doc, newThingJSON(v, goes[i]))
			}
			return writeJSON(t.out, map[string]any{"dryRun": f.dryRun, "things": doc})
		}
		return pruneTable(t.out, list, goes, f.dryRun, f.verbose)
	})
}

// pruneTable shows what goes and what stays, and why: sums, or every thing.
func pruneTable(w io.Writer, list []executor.Verdict, goes []bool, dry, verbose bool) error {
	fate := map[bool]string{true: "goes", false: "stays"}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if verbose {
		fmt.Fprintln(tw, "KIND\tFATE\tNAME\tSIZE\tUSED\tWHY")
		for i, v := range list {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Kind, fate[goes[i]], printable(v.Name), size(max(0, v.Bytes)), moment(v.Last), printable(v.Why))
		}
	} else {
		type row struct {
			kind executor.ThingKind
			goes bool
			why  string
		}
		type sum struct {
			count int
			bytes int64
		}
		sums := map[row]*sum{}
		var order []row
		for i, v := range list {
			why := v.Why
			if image, ok := strings.CutPrefix(why, "part of the image "); ok && image != "" {
				why = "part of a named image"
			}
			r := row{v.Kind, goes[i], why}
			if sums[r] == nil {
				sums[r] = &sum{}
				order = append(order, r)
			}
			sums[r].count++
			sums[r].bytes += max(0, v.Bytes)
		}
		slices.SortStableFunc(order, func(a, b row) int {
			if a.kind != b.kind || a.goes == b.goes {
				return 0
			}
			return map[bool]int{true: -1, false: 1}[a.goes]
		})
		fmt.Fprintln(tw, "KIND\tFATE\tCOUNT\tSIZE\tWHY")
		for _, r := range order {
			fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\n", r.kind, fate[r.goes], sums[r].count, size(sums[r].bytes), r.why)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	var freed, left int64
	n := 0
	for i, v := range list {
		if goes[i] {
			freed += max(0, v.Bytes)
			n++
		} else {
			left += max(0, v.Bytes)
		}
	}
	verb := "removed"
	if dry {
		verb = "would be removed"
	}
	_, err := fmt.Fprintf(w, "\n%d things with %s %s; %s stay\n", n, size(freed), verb, size(left))
	return err
}

// maxStoreEnv names a variable with the size that the store may have after a
// build; without it a build removes nothing.
const maxStoreEnv = "KANIKO_BUILD_MAX_STORE"

// maxStore is its value in bytes; 0 without it.
func maxStore() (int64, error) {
	v := os.Getenv(maxStoreEnv)
	if v == "" {
		return 0, nil
	}
	n, err := parseSize(v)
	if err != nil || n == 0 {
		return 0, usageError{fmt.Errorf("%s=%q is no size\n  hint: write a number of bytes, or one with a unit, as 20GB", maxStoreEnv, v)}
	}
	return n, nil
}

// shut closes the store after a build that ended with err. When that went well
// and there is a limit, the store is brought down to it first; what the build
// has used stays.
func shut(ctx context.Context, x *executor.Executor, limit int64, err error) error {
	if err == nil && limit > 0 {
		var list []executor.Verdict
		list, err = x.Judge(ctx, executor.PrunePolicy{MaxSize: limit}, true)
		if err == nil && slices.ContainsFunc(list, func(v executor.Verdict) bool { return v.Goes }) {
			_, err = x.Prune(ctx, list, true)
		}
		if err != nil {
			err = fmt.Errorf("shrink the store to %s: %w", size(limit), err)
		}
	}
	return errors.Join(err, x.Close(ctx))
}

// parseSize reads a number of bytes: 500MB, 20GB and so on, of thousands, or of
// 1024s as in GiB or Gi.
func parseSize(s string) (int64, error) {
	text := s
	s = strings.TrimSpace(s)
	i := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	unit := ""
	if i >= 0 {
		s, unit = s[:i], strings.ToUpper(strings.TrimSpace(s[i:]))
	}
	factor, ok := map[string]float64{
		"": 1, "B": 1, "K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9, "T": 1e12, "TB": 1e12,
		"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30, "TI": 1 << 40,
	}[unit]
	if !ok {
		return 0, fmt.Errorf("%q is no size: write 500MB, 8GB or 1.5GiB", text)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f*factor >= 1<<62 {
		return 0, fmt.Errorf("%q is no size: write 500MB, 8GB or 1.5GiB", text)
	}
	return int64(f * factor), nil
}
