//! Pods as a real kubelet and containerd start them.

mod asking;
mod deployed;
mod documented;
mod host;
mod life;
mod moving;
mod multus;
mod networks;
mod newer;
mod plain;
mod running;
mod untouched;

use std::process::ExitCode;
use std::time::Duration;

use nsm_kube::{Mesh, Release, pods, scenarios};

/// For all scenarios together.
const BOUND: Duration = Duration::from_mins(18);

fn main() -> ExitCode {
    let all = scenarios![
        plain::pods_of_the_first_network_reach_each_other,
        plain::pods_of_two_machines_reach_each_other,
        plain::a_static_pod_and_restarts,
        asking::both_forms_of_the_annotation,
        asking::a_namespace_asks_for_its_pods,
        asking::a_wrong_annotation_is_told_and_mended,
        asking::a_pod_in_the_hosts_network_is_told,
        asking::the_pod_says_what_it_has,
        untouched::without_an_agent,
        untouched::without_agent_and_api_server,
        running::an_edited_annotation_attaches_and_detaches,
        running::by_hand,
        life::a_sandbox_is_made_again,
        life::restarts_of_everything_lose_no_packet,
        life::a_static_pod_asks,
        life::an_endpoint_that_goes_is_replaced,
        life::a_hundred_pods_come_and_go_at_once,
        life::a_machine_loses_its_power,
        multus::a_definition_of_our_type,
        moving::from_the_plugin_and_back,
        moving::from_the_daemon_and_back,
        networks::pods_have_what_they_ask_for,
        networks::a_default_route_moves,
        networks::plugins_in_folders_follow,
        networks::each_network_has_a_device_of_the_pod,
        networks::each_network_has_a_device_of_a_claim,
        networks::plugins_are_told_what_a_pod_asks_for,
        networks::edited_networks_come_and_go,
        networks::sandboxes_and_machines_end,
        networks::without_an_agent,
        networks::what_cannot_be_is_told,
        newer::status_is_true_without_an_agent,
        newer::a_pod_of_libcni,
        newer::containerd_asks_for_status,
        newer::check_and_gc_by_libcni,
        newer::an_endpoint_of_another_machine_is_told,
        newer::a_machine_that_is_lost_loses_its_endpoints,
        documented::on_pods_and_nodes,
        documented::without_a_cluster,
        documented::installed_upgraded_uninstalled,
        documented::by_hand_and_by_the_readme,
        deployed::installs_itself,
        host::an_endpoint_in_the_hosts_network_is_its_pods,
        host::an_endpoint_that_is_not_seen_is_the_hosts,
        networks::edited_through_the_door,
        networks::sixty_four_pods_at_once,
        deployed::the_examples,
        deployed::without_the_daemon_set,
        deployed::killed_and_replaced,
        deployed::upgraded_and_rolled_back,
    ];
    scenarios::main(all, start, BOUND)
}

fn start(lab: &str) -> anyhow::Result<Mesh> {
    let mut mesh = Mesh::start(lab)?;
    mesh.add(Release::Packaged)?;
    mesh.add(Release::newer()?)?;
    for file in ["deploy/crds.yaml", "deploy/rbac.yaml"] {
        mesh.kubectl(&["apply", "-f", &pods::file(file)?])?;
    }
    for at in 0..mesh.len() {
        mesh.machine(at)?.import(&[pods::image()?])?;
        mesh.start_agent(at)?;
        mesh.machine(at)?.install()?;
    }
    Ok(mesh)
}
