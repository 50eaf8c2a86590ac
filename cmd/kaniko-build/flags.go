package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// fromEnvironment gives flags that were not written their values from the
// environment: KANIKO_BUILD_KEEP_GOING=true is --keep-going. Only commands that read
// a manifest ask there, and not for its variables, which have names of their own.
// The value of a flag that can be repeated has a line for each.
func fromEnvironment(c *cobra.Command) error {
	if c.Flags().Lookup("var-file") == nil {
		return nil
	}
	var errs []error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		name := flagVariable(f.Name)
		text, set := os.LookupEnv(name)
		if !set || f.Changed || f.Name == "var" || f.Name == "help" {
			return
		}
		values := []string{text}
		if _, many := f.Value.(pflag.SliceValue); many {
			values = strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
		}
		for _, v := range values {
			if err := c.Flags().Set(f.Name, v); err != nil {
				errs = append(errs, usageError{fmt.Errorf("%s=%q: %w\n  hint: it stands for --%s", name, text, errors.Unwrap(err), f.Name)})
				return
			}
		}
	})
	return errors.Join(errs...)
}

// flagVariable is the environment variable that stands for a flag.
func flagVariable(flag string) string {
	return "KANIKO_BUILD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
