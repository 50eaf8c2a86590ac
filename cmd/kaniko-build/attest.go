package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tonistiigi/go-csvvalue"

	"kaniko-build/executor"
)

// attestFlags say what is stated about images, in the words of docker build.
type attestFlags struct {
	provenance, sbom string
	attest           []string
}

func (f *attestFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.provenance, "provenance", "", "state beside the images how they were made: true, min, max, mode=min|max or false")
	fl.StringVar(&f.sbom, "sbom", "", "state beside the images which packages are in them: true, spdx-json or false")
	fl.StringArrayVar(&f.attest, "attest", nil, "both of --provenance and --sbom in docker's words, type=provenance[,mode=min|max][,builder-id=URI] or type=sbom; disabled=true takes it away")
	complete(c, "provenance", "true", "min", "max", "false")
	complete(c, "sbom", "true", "false")
}

// set changes what is stated as the flags say. --provenance and --sbom are
// stronger than --attest, as with docker build.
func (f *attestFlags) set(a *executor.Attest) error {
	for _, s := range f.attest {
		if err := parseAttest("--attest", "", s, a); err != nil {
			return err
		}
	}
	if f.provenance != "" {
		if err := parseAttest("--provenance", "provenance", f.provenance, a); err != nil {
			return err
		}
	}
	if f.sbom != "" {
		return parseAttest("--sbom", "sbom", f.sbom, a)
	}
	return nil
}

// parseAttest reads the value of a flag: fields KEY=VALUE, or a lone value for the
// kind that the flag is of.
func parseAttest(flag, kind, s string, a *executor.Attest) error {
	bad := func(format string, args ...any) error {
		return usageError{fmt.Errorf("%s %q: %s", flag, s, fmt.Sprintf(format, args...))}
	}
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return bad("%v", err)
	}
	mode, builder, off := "", a.Builder, false
	for _, field := range fields {
		k, v, pair := strings.Cut(field, "=")
		switch {
		case !pair && kind != "":
			if on, err := strconv.ParseBool(field); err == nil {
				off = !on
			} else {
				mode = field
			}
		case k == "type" && kind == "":
			kind = v
		case k == "mode" && kind == "provenance":
			mode = v
		case k == "builder-id" && kind == "provenance":
			builder = v
		case k == "disabled":
			if off, err = strconv.ParseBool(v); err != nil {
				return bad("disabled is true or false")
			}
		case k == "generator" && kind == "sbom":
			return bad("there is one scanner here, and no generator to choose\n  hint: leave it out")
		case kind == "" && !pair:
			return bad("it has no type\n  hint: write type=provenance or type=sbom")
		default:
			return bad("no field %q", field)
		}
	}
	switch kind {
	case "provenance":
		switch mode {
		case "":
			mode = executor.ProvenanceMin
		case executor.ProvenanceMin, executor.ProvenanceMax:
		default:
			return bad("no mode %q: choose min or max", mode)
		}
		if a.Builder = builder; off {
			mode = ""
		}
		a.Provenance = mode
	case "sbom":
		if mode != "" && mode != executor.SPDX {
			return bad("no format %q: choose %s", mode, executor.SPDX)
		}
		if a.SBOM = executor.SPDX; off {
			a.SBOM = ""
		}
	case "":
		return bad("it has no type\n  hint: write type=provenance or type=sbom")
	default:
		return bad("no type %q\n  hint: write type=provenance or type=sbom", kind)
	}
	return nil
}
