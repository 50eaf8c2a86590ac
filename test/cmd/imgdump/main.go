// Imgdump prints a canonical JSON description of a container image.
package main

import (
	"flag"
	"fmt"
	"os"

	"kaniko-build/test/image"
)

func main() {
	platform := flag.String("platform", "", "which image of an index to read (default linux/amd64)")
	base := flag.String("base", "", "OCI layout directory; if the image starts with the layers of an image in it, print only what differs from that base")
	layers := flag.Int("base-layers", 0, "print only what differs from the file system of the first N layers")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: imgdump [flags] IMAGE\nIMAGE: OCI layout directory or tar, docker-save tar (each with an optional #NAME), or registry reference")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *platform, *base, *layers); err != nil {
		fmt.Fprintln(os.Stderr, "imgdump:", err)
		os.Exit(2)
	}
}

func run(src, platform, base string, layers int) error {
	img, err := image.Open(src, platform)
	if err != nil {
		return err
	}
	defer img.Close()
	var known [][]string
	if base != "" {
		if known, err = image.Chains(base); err != nil {
			return err
		}
		layers = -1
	}
	d, err := image.Describe(img, known, layers)
	if err != nil {
		return err
	}
	return d.WriteJSON(os.Stdout)
}
