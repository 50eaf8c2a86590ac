package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// fromEnvironment gives flags that were not written their values from the
// environment: KANIKO_BUILD_KEEP_GOING=true is --keep-going. Only commands that read
// a manifest ask there, and not for its variables: KANIKO_BUILD_VAR_FILE is the variable
// file. What --set says on the command line is stronger.
// The value of a flag that can be repeated has a line for each.
func fromEnvironment(c *cobra.Command) error {
	if c.Flags().Lookup("var-file") == nil {
		return nil
	}
	var errs []error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		name := flagVariable(f.Name)
		text, set := os.LookupEnv(name)
		if !set || f.Changed || slices.Contains([]string{"var", "var-file", "help"}, f.Name) || setInstead(c, f.Name) {
			return
		}
		values := []string{text}
		if _, many := f.Value.(pflag.SliceValue); many {
			values = strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
		}
		for _, v := range values {
			if err := c.Flags().Set(f.Name, v); err != nil {
				errs = append(errs, usageError{fmt.Errorf("%s=%q: %s\n  hint: it stands for --%s", name, text, wanted(f, errors.Unwrap(err)), f.Name)})
				return
			}
		}
	})
	return errors.Join(errs...)
}

// wanted says what the value of a flag looks like. err is what the flag says of one that
// does not; where that is of Go's parsers, it says nothing to users.
func wanted(f *pflag.Flag, err error) string {
	switch f.Value.Type() {
	case "int", "int64", "uint":
		return "write a whole number"
	case "bool":
		return "write true or false"
	case "duration":
		return "write a time, such as 90s, 5m or 336h"
	}
	return err.Error()
}

// keysOf are the keys of targets that flags stand for.
var keysOf = map[string]string{
	"compression": "executor.compression", "compression-level": "executor.compressionLevel", "image-format": "executor.imageFormat",
	"reproducible": "executor.reproducible", "no-cache": "noCache", "cache": "cache", "cache-repo": "cache.repo", "cache-ttl": "cache.ttl",
	"cache-run-layers": "cache.run", "cache-copy-layers": "cache.copy", "no-push-cache": "cache.write",
}

// setInstead tells whether --set on the command line gives the key that a flag
// stands for.
func setInstead(c *cobra.Command, flag string) bool {
	sets, err := c.Flags().GetStringArray("set")
	return err == nil && keysOf[flag] != "" && slices.ContainsFunc(sets, func(s string) bool {
		path, _, _ := strings.Cut(s, "=")
		return strings.HasSuffix(path, "."+keysOf[flag])
	})
}

// flagVariable is the environment variable that stands for a flag.
func flagVariable(flag string) string {
	return "KANIKO_BUILD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
