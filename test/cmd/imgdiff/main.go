// Imgdiff compares an image with a golden description made by imgdump.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"kaniko-build/test/image"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	var o image.DiffOptions
	var skip list
	flag.StringVar(&o.MTime, "mtime", "check", "modification times: check, files (not of directories) or ignore")
	noTimes := flag.Bool("ignore-mtime", false, "same as -mtime=ignore")
	flag.BoolVar(&o.Layers, "layers", false, "also compare which paths each layer holds")
	flag.BoolVar(&o.History, "history", false, "also compare the history's created_by and empty_layer")
	flag.BoolVar(&o.Created, "created", false, "also compare creation times")
	flag.BoolVar(&o.Media, "media", false, "also compare media types")
	flag.BoolVar(&o.LaxProblems, "lax", false, "do not count malformed layers as differences")
	flag.Var(&skip, "ignore-path", "leave out this path (path.Match pattern, or DIR/**); may be repeated")
	platform := flag.String("platform", "", "which image of an index to read")
	base := flag.String("base", "", "OCI layout directory with the base images, for images that do not keep the base's layers")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: imgdiff [flags] GOLDEN.json IMAGE\nexit status: 0 equal, 1 different, 2 trouble")
		flag.PrintDefaults()
	}
	// Flags may also follow the two arguments.
	var pos []string
	args := os.Args[1:]
	for {
		flag.CommandLine.Parse(args)
		if flag.NArg() == 0 {
			break
		}
		pos = append(pos, flag.Arg(0))
		args = flag.Args()[1:]
	}
	if len(pos) != 2 {
		flag.Usage()
		os.Exit(2)
	}
	o.IgnorePaths = skip
	if *noTimes {
		o.MTime = "ignore"
	}
	if o.MTime != "check" && o.MTime != "files" && o.MTime != "ignore" {
		fmt.Fprintln(os.Stderr, "imgdiff: -mtime must be check, files or ignore")
		os.Exit(2)
	}
	diffs, err := compare(pos[0], pos[1], *platform, *base, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "imgdiff:", err)
		os.Exit(2)
	}
	for _, d := range diffs {
		fmt.Println(d)
	}
	if len(diffs) > 0 {
		os.Exit(1)
	}
}

func compare(golden, src, platform, base string, o image.DiffOptions) ([]string, error) {
	want, err := image.ReadDump(golden)
	if err != nil {
		return nil, err
	}
	img, err := image.Open(src, platform)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	got, err := image.DescribeLike(img, want, base)
	if err != nil {
		return nil, err
	}
	return image.Diff(want, got, o), nil
}
