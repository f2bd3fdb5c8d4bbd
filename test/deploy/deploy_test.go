//go:build integration

// Package deploy shows that what the repository gives operators can be read by the programs it is for.
package deploy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/goodgo/streamgw/test/harness"
	"go.yaml.in/yaml/v3"
)

func project(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(harness.Root(t), "docker-compose.yml")}, cli.WithName("streamgw"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return p
}

func isGateway(s types.ServiceConfig) bool {
	_, ok := s.Environment["STREAMGW_KAFKA_BROKERS"]
	return ok
}

func TestComposeStartsTwoReplicasBehindTraefik(t *testing.T) {
	replicas, images := 0, ""
	for _, s := range project(t).Services {
		images += s.Image + " "
		if isGateway(s) {
			replicas++
		}
		for _, port := range s.Ports {
			if isGateway(s) && port.Target == 8090 {
				t.Errorf("%s publishes its admin listener", s.Name)
			}
		}
	}
	if replicas != 2 {
		t.Errorf("%d services are gateways, want 2", replicas)
	}
	for _, want := range []string{"kafka", "traefik"} {
		if !strings.Contains(images, want) {
			t.Errorf("no service runs %s: %s", want, images)
		}
	}
}

// A setting that the program doesn't know keeps it from starting.
func TestComposeUsesSettingsThatTheDocsName(t *testing.T) {
	docs, err := os.ReadFile(filepath.Join(harness.Root(t), "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	for _, s := range project(t).Services {
		for name := range s.Environment {
			if !strings.HasPrefix(name, "STREAMGW_") {
				continue
			}
			used++
			if !bytes.Contains(docs, []byte("`"+name+"`")) {
				t.Errorf("%s sets %s, which docs/configuration.md doesn't name", s.Name, name)
			}
		}
	}
	if used == 0 {
		t.Error("no service sets anything of the gateway")
	}
}

func TestComposeMountsFilesThatExist(t *testing.T) {
	for _, s := range project(t).Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind || strings.HasPrefix(v.Source, "/var/run/") {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s mounts %s: %v", s.Name, v.Source, err)
			}
		}
	}
}

// object is what of a Kubernetes object the test looks at.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec struct {
		Routes []struct {
			Match    string `yaml:"match"`
			Services []struct {
				Name string `yaml:"name"`
				Port any    `yaml:"port"`
			} `yaml:"services"`
		} `yaml:"routes"`
	} `yaml:"spec"`
}

func objects(t *testing.T, file string) (all []object) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, o)
	}
}

func TestIngressRouteRoutesToTheGateway(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(harness.Root(t), "traefik", "*.y*ml"))
	if err != nil {
		t.Fatal(err)
	}
	routes := 0
	for _, file := range files {
		for _, o := range objects(t, file) {
			if o.Kind != "IngressRoute" {
				continue
			}
			if o.APIVersion != "traefik.io/v1alpha1" || o.Metadata.Name == "" {
				t.Errorf("%s: %+v isn't an IngressRoute that Traefik takes", file, o)
			}
			for _, r := range o.Spec.Routes {
				routes++
				if !regexp.MustCompile(`(Host|PathPrefix|Path)\(`+"`").MatchString(r.Match) || len(r.Services) == 0 {
					t.Errorf("%s: a route %q to %v", file, r.Match, r.Services)
				}
				for _, s := range r.Services {
					if s.Name == "" || s.Port == nil || s.Port == 8090 || s.Port == "admin" {
						t.Errorf("%s: route %q leads to %q port %v", file, r.Match, s.Name, s.Port)
					}
				}
			}
		}
	}
	if routes == 0 {
		t.Errorf("no route of an IngressRoute in %v", files)
	}
}
