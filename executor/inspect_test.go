package executor_test

import (
	"strings"
	"testing"

	"kaniko-build/executor"
)

func TestReferencesKeepWhatIsNamed(t *testing.T) {
	for _, c := range []struct{ name, text, want, mistake string }{
		{name: "a name without value is told of, and no mistake", text: "FROM ${NO} AS a\nFROM base:1\nCOPY --from=a / /\n",
			want: "FROM ${NO} unresolved, FROM base:1"},
		{name: "so is one with a part of it", text: "ARG REG\nFROM ${REG}/app\n", want: "FROM ${REG}/app unresolved"},
		{name: "a platform belongs to the name", text: "FROM --platform=linux/arm/v7 a AS x\nFROM b\nCOPY --from=x / /\n",
			want: "FROM a linux/arm/v7, FROM b"},
		{name: "other mistakes stay", text: "FROM ${NO} AS a\nFROM --platform=no/such/thing/at/all b\nCOPY --from=a / /\n", mistake: "Dockerfile:2:"},
		{name: "a name that cannot be", text: "FROM Bad\n", mistake: "Dockerfile:1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refs, err := executor.References(executor.Request{Dockerfile: executor.Text{Data: []byte(c.text)}})
			if c.mistake != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.mistake) || strings.Contains(err.Error(), "\nDockerfile") {
					t.Fatalf("got %v, want one mistake at %s", err, c.mistake)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range refs {
				one := r.Use + " " + r.Name
				if r.Platform != "" {
					one += " " + r.Platform
				}
				if r.Unresolved {
					one += " unresolved"
				}
				got = append(got, one)
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("got %s\nwant %s", s, c.want)
			}
		})
	}
}
