package copier_test

import (
	"errors"
	"testing"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/schema/diag"
)

// Every name that is not there is told, with which of the patterns it is.
func TestFindTellsAllThatIsMissing(t *testing.T) {
	_, err := copier.Find(t.Context(), copier.Empty, copier.Select{Patterns: []string{"a", "*.none", "b"}})
	var wrong copier.Mistakes
	if !errors.As(err, &wrong) || len(wrong) != 2 || wrong[0].Pattern != 0 || wrong[1].Pattern != 2 {
		t.Fatalf("got %#v, want mistakes in patterns 0 and 2", err)
	}
	var first *diag.Problem
	if !errors.As(err, &first) || first != wrong[0].Problem {
		t.Errorf("errors.As finds %v, want the first problem", first)
	}
}
