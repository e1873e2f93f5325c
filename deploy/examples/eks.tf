# An EKS cluster without the AWS VPC CNI, and Hawser from the chart. Roles and subnets come from your own configuration.
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
    # Version 3 has no `set` blocks.
    helm = {
      source  = "hashicorp/helm"
      version = "~> 2.17"
    }
  }
}

resource "aws_eks_cluster" "example" {
  name     = "example"
  role_arn = var.cluster_role_arn
  version  = "1.33"

  # EKS installs no aws-node, kube-proxy and CoreDNS of its own.
  bootstrap_self_managed_addons = false

  vpc_config {
    subnet_ids = var.subnet_ids
  }
}

resource "aws_eks_addon" "kube_proxy" {
  cluster_name = aws_eks_cluster.example.name
  addon_name   = "kube-proxy"
}

resource "aws_iam_policy" "hawser" {
  name   = "hawser-ipv4"
  policy = file("${path.module}/../iam/ipv4.json")
}

resource "aws_iam_role_policy_attachment" "hawser" {
  role       = var.node_role_name
  policy_arn = aws_iam_policy.hawser.arn
}

resource "helm_release" "hawser" {
  name       = "hawser"
  namespace  = "kube-system"
  chart      = "${path.module}/../chart/hawser"
  depends_on = [aws_eks_addon.kube_proxy]
  # The pods become ready with the first nodes, which come later.
  wait = false

  set {
    name  = "image.repository"
    value = var.hawser_image
  }

  set {
    name  = "env.CLUSTER_ENDPOINT"
    value = aws_eks_cluster.example.endpoint
  }
}

# After Hawser: nodes are Ready only with a CNI.
resource "aws_eks_node_group" "nodes" {
  cluster_name    = aws_eks_cluster.example.name
  node_group_name = "nodes"
  node_role_arn   = var.node_role_arn
  subnet_ids      = var.subnet_ids
  depends_on      = [helm_release.hawser, aws_iam_role_policy_attachment.hawser]

  scaling_config {
    desired_size = 2
    max_size     = 4
    min_size     = 1
  }

  taint {
    key    = "hawser.dev/agent-not-ready"
    effect = "NO_EXECUTE"
  }
}

resource "aws_eks_addon" "coredns" {
  cluster_name = aws_eks_cluster.example.name
  addon_name   = "coredns"
  depends_on   = [aws_eks_node_group.nodes]
}

variable "cluster_role_arn" { type = string }
variable "node_role_arn" { type = string }
variable "node_role_name" { type = string }
variable "subnet_ids" { type = list(string) }
variable "hawser_image" { type = string }
